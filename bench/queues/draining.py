"""A process that stores many jobs at once, and then works until enough of them have begun.

Prints how long storing took, how many began a second, and what CPU time of this process each took.
The first tenth is its warm-up. Who has no way to store many at once stores no more than are
worked off.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from queues.contestant import contestant

PATIENCE_SECONDS = 600.0


async def measure(name: str, url: str, many: int, count: int, limit: int) -> dict[str, float]:
    began: list[tuple[float, float]] = []
    done = asyncio.Event()

    def started() -> None:
        began.append((time.monotonic(), time.process_time()))
        if len(began) == count:
            loop.call_soon_threadsafe(done.set)

    loop = asyncio.get_running_loop()
    found: dict[str, float] = {}
    async with contestant(name, url, started) as jobs:
        stored = many if jobs.bulk else count
        at = time.monotonic()
        await jobs.enqueue_many(stored)
        found["stored_a_second"] = stored / (time.monotonic() - at)
        async with asyncio.timeout(PATIENCE_SECONDS), jobs.working(limit):
            await done.wait()
    first, last = began[count // 10], began[count - 1]
    jobs_counted = count - 1 - count // 10
    found["a_second"] = jobs_counted / (last[0] - first[0])
    found["cpu_ms"] = 1000 * (last[1] - first[1]) / jobs_counted
    return found


if __name__ == "__main__":
    many, count, limit = map(int, sys.argv[3:])
    print(json.dumps(asyncio.run(measure(sys.argv[1], sys.argv[2], many, count, limit))))
