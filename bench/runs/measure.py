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


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        counting: True counts the commits of a SQLite file, and times nothing.
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
        commits = file.Commits(place.file) if task.counting and place.file else None
        if server:
            server.execute("CHECKPOINT")
        await drive(one, keys("warm", workload.warm_up), workload)
        gc.collect()
        before_stored = stored(place)
        position = server.position() if server else ""
        if commits:
            commits.begin()
        before = cpu(), server.cpu() if server else 0.0, written()
        began = time.perf_counter()
        took = await drive(one, keys("run", workload.runs), workload)
        wall = time.perf_counter() - began
        after = cpu(), server.cpu() if server else 0.0, written()
        counted = commits.end() if commits else None
        wrote = after[2] - before[2]
        if server:
            wrote, counted = server.written(position)
        after_stored = stored(place)
    done = len(took)
    found: dict[str, Any] = {
        "runs": done,
        "wall": wall / done,
        "cpu": (after[0] - before[0]) / done,
        "median": statistics.median(took),
        "p99": sorted(took)[int(done * 0.99)],
    }
    if server:
        found["database_cpu"] = (after[1] - before[1]) / done
    if server or place.file:
        found["written"] = wrote / done
        found["stored"] = (after_stored - before_stored) / done
    if counted is not None:
        found["commits"] = counted / done
    if place.file:
        found["journal_mode"] = file.journal_mode(place.file)
    return found


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
    answer = asyncio.run(measure(read(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(answer))
