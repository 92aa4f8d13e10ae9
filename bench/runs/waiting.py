"""What runs weigh that wait for their model: resident bytes each, in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from runs.contestant import Place
from runs.scripted import NO_LIMITS, PROMPT, agent_for, asked_so_far
from runs.workload import Workload

FIRST = 200
"""Runs that wait before it is measured, so that what they share is there already."""


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def weigh(start: Callable[[int], Awaitable[None]], runs: int) -> float:
    """Start some runs, then more, and compare."""
    for number in range(FIRST):
        await start(number)
    await all_wait(FIRST)
    before = resident()
    for number in range(FIRST, FIRST + runs):
        await start(number)
    await all_wait(FIRST + runs)
    return (resident() - before) / runs


async def all_wait(count: int) -> None:
    while asked_so_far[0] < count:  # noqa: ASYNC110 - a look now and then costs no memory
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)  # What was written in the background is let go.


async def bare(workload: Workload, runs: int) -> float:
    agent, tasks = agent_for(workload), set[asyncio.Task[object]]()

    async def start(number: int) -> None:
        tasks.add(asyncio.create_task(agent.run(PROMPT, usage_limits=NO_LIMITS)))

    return await weigh(start, runs)


async def durable(place: Place, workload: Workload, runs: int) -> float:
    from runs.contestants.durable import working

    async with working(place, workload) as (app, agent):

        async def start(number: int) -> None:
            await app.enqueue(agent, PROMPT, key=f"waits-{number}")

        found = await weigh(start, runs)
        finish(found)
    return found


def finish(found: float) -> None:
    """Answer, and be gone: nobody waits for the model."""
    Path(sys.argv[2]).write_text(json.dumps({"bytes": found}))
    os._exit(0)


async def main() -> None:
    given = json.loads(sys.argv[1])
    runs, place = given["runs"], given["place"]
    workload = Workload("waiting", latency=3600, concurrency=FIRST + runs)
    if place is None:
        finish(await bare(workload, runs))
    else:
        file = Path(place["file"]) if place["file"] else None
        await durable(Place(file, place["url"]), workload, runs)


if __name__ == "__main__":
    asyncio.run(main())
