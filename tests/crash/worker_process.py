"""A worker in a Python process of its own: ``python -m crash.worker_process FOLDER JOB …``.

What `processes` forks is cheaper; this one shares nothing with anybody, as after a deploy.
"""

import argparse
from pathlib import Path

from crash.children import Strike, worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("job")
    parser.add_argument("--lease", type=float, default=30.0)
    parser.add_argument("--strike", type=strike, default=None)
    options = parser.parse_args()
    worker(options.folder, options.job, lease_seconds=options.lease, strike=options.strike)


def strike(text: str) -> Strike:
    """``effect:after#1``"""
    name, _, nth = text.partition("#")
    return Strike(name, int(nth))


if __name__ == "__main__":
    main()
