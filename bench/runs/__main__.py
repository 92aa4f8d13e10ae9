"""`python -m runs`: measures agent runs and writes bench/results/runs.json. See `make bench`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from runs.compare import Comparison, Results
from runs.contestant import CONTESTANTS
from runs.machine import use_a_disk
from runs.plan import FULL, QUICK
from runs.server import running

RESULTS = Path(__file__).parent.parent / "results" / "runs.json"


def main() -> None:
    options: Any = argparse.ArgumentParser(prog="python -m runs", description=__doc__)
    options.add_argument("--quick", action="store_true", help="a few minutes, fewer figures")
    options.add_argument("--minutes", type=float, help="at most; what is left is not measured")
    options.add_argument(
        "--patience", type=float, default=1, help="times as long for everything: a busy machine"
    )
    options.add_argument("--only", default=",".join(CONTESTANTS), help="of the contestants")
    options.add_argument(
        "--rounds", help="nothing but these workloads, added to the results that there are"
    )
    options.add_argument("--output", type=Path, default=RESULTS, metavar="FILE")
    given = options.parse_args()
    # What was started is ended with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    use_a_disk()
    began = time.monotonic()
    arguments = " ".join(sys.argv[1:])
    command = f"make bench ARGS='{arguments}'" if arguments else "make bench"
    plan = QUICK if given.quick else FULL
    if given.minutes:
        plan = replace(plan, seconds=given.minutes * 60)
    with running() as server:
        comparison = Comparison(plan, server, command, given.patience, given.only.split(","))
        if given.rounds:
            earlier = Results(**json.loads(given.output.read_text()))
            results = comparison.some(given.rounds.split(",")).added_to(earlier)
        else:
            results = comparison.everything()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(results.text())
    print(f"Measured in {(time.monotonic() - began) / 60:.0f} minutes: {given.output.name}")


if __name__ == "__main__":
    main()
