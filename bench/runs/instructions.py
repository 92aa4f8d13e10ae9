"""How many instructions a process executes for a run, in all its threads; without the kernel's.

Counted, not timed, and so the same on a busy machine (Valgrind's manual, "Callgrind"). Under
Valgrind all takes some forty times as long, so that what durably does by the clock, such as
heartbeats, comes as much more often than it does in runs that are timed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

from runs.contestant import CONTESTANTS
from runs.measure import Task, drive, keys, read


async def count(task: Task) -> None:
    """Have Callgrind count, and write what it has counted beside its output file."""
    workload = task.workload
    async with CONTESTANTS[task.contestant].opener()(task.place, workload) as one:
        await drive(one, keys("warm", workload.concurrency), workload)
        gc.collect()
        _tell("--instr=on")
        await drive(one, keys("run", workload.runs), workload)
        _tell("--dump")
        _tell("--instr=off")


def counted(dump: Path) -> int:
    """What a dump of Callgrind's says of all instructions (its manual, "File Format")."""
    totals = [line for line in dump.read_text().splitlines() if line.startswith("totals:")]
    return int(totals[-1].split()[1])


def _tell(what: str) -> None:
    subprocess.run(
        ["callgrind_control", what, str(os.getpid())], check=True, stdout=subprocess.DEVNULL
    )


if __name__ == "__main__":
    task, answer = read(sys.argv[1]), Path(sys.argv[2])
    asyncio.run(count(task))
    instructions = counted(answer.with_name("callgrind.1")) / task.workload.runs
    answer.write_text(json.dumps({"instructions": instructions}))
