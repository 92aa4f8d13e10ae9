"""A process that moves a ledger: ``python -m support.transfer_process COMMAND SOURCE TARGET``.

Followed by a boundary and a number, it is killed when it reaches that boundary the n-th time.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from durably import boundaries
from durably.ledger.transfer import move as steps
from durably.ledger.transfer.move import move, take_back

RUNS_IN_BATCH = 7


def small_batches() -> None:
    steps.FIRST_BATCH = steps.MOST_IN_BATCH = RUNS_IN_BATCH


def kill_at(name: str, nth: int) -> None:
    reached: Counter[str] = Counter()

    def observer(now: str) -> None:
        reached[now] += 1
        if now == name and reached[now] == nth:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    boundaries.observe(observer)


def peak_megabytes() -> float:
    """The most memory that this program ever had.

    On Linux not by `resource`: that counts what the process was before it became this program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [li for li in status.read_text().splitlines() if li.startswith("VmHWM:")]
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


def main(command: str, source: str, target: str, name: str = "", nth: str = "1") -> None:
    small_batches()
    if name:
        kill_at(name, int(nth))
    if command == "move":
        for news in move(source, target):
            print(news, flush=True)
        print(f"peak: {peak_megabytes():.0f} MB")
    else:
        print(take_back(source, target), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
