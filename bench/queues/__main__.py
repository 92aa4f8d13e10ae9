"""Measures queue and ledger, into bench/results/queues.json. Run it with `make bench-queues`."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from queues import bare, beside, large, resuming, waiting
from queues.databases import Databases, databases
from queues.figures import Figures
from queues.sizes import QUICK, Sizes

RESULTS = Path(__file__).parent.parent / "results" / "queues.json"

PARTS: dict[str, Callable[[Databases, Figures, Sizes], None]] = {
    "bare": bare.measure,
    "starting": beside.measure_starting,
    "draining": beside.measure_draining,
    "resuming": resuming.measure,
    "large": large.measure,
    "waiting": waiting.measure,
}

PEERS = ("oban", "procrastinate", "pgqueuer", "dbos", "absurd-sdk", "pydantic-ai-slim", "psycopg")


def main() -> None:
    options: Any = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="as little as shows that it works")
    options.add_argument(
        "--only",
        choices=PARTS,
        action="append",
        help="these parts alone, beside what was measured before",
    )
    options.add_argument("--to", type=Path, default=RESULTS, help="where the results go")
    given = options.parse_args()
    sizes = QUICK if given.quick else Sizes()
    figures = Figures.read(given.to) if given.only else Figures()
    with databases() as made:
        figures.circumstances = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.platform()}",
            "load": os.getloadavg(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in PEERS},
            "postgres": made.circumstances(),
            "sqlite": "synchronous=FULL, WAL",
            "quick": given.quick,
        }
        for name in given.only or PARTS:
            print(f"== {name}", flush=True)
            figures.begin(name)
            PARTS[name](made, figures, sizes)
            figures.write(given.to)
    print(figures.table())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
