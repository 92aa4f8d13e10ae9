"""How many functions a step calls, in all threads: counted, and so the same on a busy machine.
Python's own functions and C's count alike (Python docs, "The Python Profilers").
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import sys
from pathlib import Path

from runs.contestant import CONTESTANTS
from runs.measure import Task, drive, keys, read


async def count(task: Task) -> float:
    """Calls of one run, by its steps."""
    workload = task.workload
    profiler = cProfile.Profile()
    async with CONTESTANTS[task.contestant].opener()(task.place, workload) as one:
        steps, workload.steps = workload.steps, min(workload.steps, 20)
        await drive(one, keys("warm", 1), workload)
        workload.steps = steps
        profiler.enable()
        await drive(one, keys("run", 1), workload)
        profiler.disable()
    return sum(function.callcount for function in profiler.getstats()) / steps


if __name__ == "__main__":
    answer = {"calls": asyncio.run(count(read(sys.argv[1])))}
    Path(sys.argv[2]).write_text(json.dumps(answer))
