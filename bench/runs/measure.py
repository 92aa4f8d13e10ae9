"""One measurement, in a process of its own: warm up, do the runs, say what they cost.

Started by `runs.compare` with what to measure as JSON and a file for the answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import file
from runs.contestant import CONTESTANTS, Place, RunOne
from runs.server import Server
from runs.workload import Workload

COUNTED_STEPS = (10, 30)


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        counting: True counts commits, and times nothing.
    """

    contestant: str
    workload: Workload
    place: Place
    server: Server | None
    counting: bool = False


def cpu() -> float:
    """Seconds of this process so far, all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def written() -> int:
    """Bytes that this process had written to disks so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("write_bytes")).split()[1])


async def drive(one: RunOne, keys: Iterator[str], workload: Workload) -> list[float]:
    """Do the runs, so many at once; how long each of them took. No new one after the time."""
    until = time.perf_counter() + workload.seconds
    took: list[float] = []

    async def line() -> None:
        for key in keys:
            began = time.perf_counter()
            if began > until:
                return
            await one(key)
            took.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as lines:
        for _ in range(workload.concurrency):
            lines.create_task(line())
    return took


def keys(kind: str, count: int) -> Iterator[str]:
    return (f"{kind}-{number}" for number in range(count))


async def measure(task: Task) -> dict[str, Any]:
    workload, place, server = task.workload, task.place, task.server
    async with CONTESTANTS[task.contestant].opener()(place, workload) as one:
        if server:
            server.execute("CHECKPOINT")
        # What is warm after twenty steps is warm: a thousand of them take half a minute.
        steps, workload.steps = workload.steps, min(workload.steps, 20)
        await drive(one, keys("warm", workload.warm_up), workload)
        workload.steps = steps
        gc.collect()
        before_stored, before_unused = stored(place), unused(place)
        position = server.position() if server else ""
        # Its own CPU last before and first after: looking at the server takes some.
        database, wrote_before = server.cpu() if server else 0.0, written()
        own, began = cpu(), time.perf_counter()
        took = await drive(one, keys("run", workload.runs), workload)
        wall = time.perf_counter() - began
        own = cpu() - own
        database = server.cpu() - database if server else 0.0
        wrote = server.written(position)[0] if server else written() - wrote_before
        after_stored, after_unused = stored(place), unused(place)
    done = len(took)
    found: dict[str, Any] = {
        "runs": done,
        "wall": wall / done,
        "cpu": own / done,
        "median": statistics.median(took),
        "p99": sorted(took)[int(done * 0.99)],
    }
    if server:
        found["database_cpu"] = database / done
    if server or place.file:
        found["written"] = wrote / done
        found["stored"] = (after_stored - before_stored) / done
    if before_unused is not None and after_unused is not None:
        found["unused"] = (after_unused - before_unused) / done
    if place.file:
        found["journal_mode"] = file.journal_mode(place.file)
    return found


async def count(task: Task) -> dict[str, Any]:
    """Commits a step, without what a run does once: of longer runs, less those of shorter ones."""
    workload, place, server = task.workload, task.place, task.server
    counted: list[float] = []
    async with CONTESTANTS[task.contestant].opener()(place, workload) as one:
        await drive(one, keys("warm", 1), workload)
        commits = file.Commits(place.file) if place.file else None
        await drive(one, keys("warm-again", 1), workload)
        if commits:
            commits.begin()
        for steps in COUNTED_STEPS:
            workload.steps = steps
            position = server.position() if server else ""
            done = len(await drive(one, keys(f"run-{steps}", workload.runs), workload))
            await asyncio.sleep(1)  # What is written in the background is over.
            if server:
                counted.append(server.written(position)[1] / done)
            elif commits:
                counted.append(commits.since() / done)
    few, many = counted
    return {"commits": (many - few) / (COUNTED_STEPS[1] - COUNTED_STEPS[0])}


def stored(place: Place) -> int:
    if place.file:
        return file.stored(place.file)
    if place.url:
        import psycopg

        with psycopg.connect(place.url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            assert row is not None
            return int(row[0])
    return 0


def unused(place: Place) -> int | None:
    return file.unused(place.file) if place.file else None


def read(text: str) -> Task:
    given = json.loads(text)
    place = given["place"]
    return Task(
        given["contestant"],
        Workload(**given["workload"]),
        Place(Path(place["file"]) if place["file"] else None, place["url"]),
        Server(**given["server"]) if given["server"] else None,
        given["counting"],
    )


if __name__ == "__main__":
    task = read(sys.argv[1])
    answer = asyncio.run(count(task) if task.counting else measure(task))
    Path(sys.argv[2]).write_text(json.dumps(answer))
