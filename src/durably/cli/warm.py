"""The process that a crash test's children are forked from: ``python -m durably.cli.warm APP``.

Owns which application it is; with a job's file after it, the job is done here and now.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from durably.cli.target import import_module_of, load_app
from durably.crashtest import warm


def main(app: str, *job: str) -> None:
    """Serve, or do one job."""
    load = partial(load_app, app)
    if job:
        sys.exit(warm.do(Path(job[0]), load))
    warm.serve("durably.cli.warm", partial(import_module_of, app), load)


if __name__ == "__main__":
    main(*sys.argv[1:])
