"""A process that enqueues one job after the other for an idle worker, which is another process.

Prints how long storing each took, and how long from before it was stored until it began. A queue
whose worker polls takes long to start a job: it has fewer of them, after so many seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from queues.contestant import contestant

WARM_UP = 10
LEAST = 10
"""Jobs that everybody is measured by, however long they take."""

PATIENCE_SECONDS = 120.0

IDLE_SECONDS = 0.1
"""From the start of one job until the next is enqueued: the worker has ended the first by then."""


@asynccontextmanager
async def worker(name: str, url: str) -> AsyncGenerator[asyncio.StreamReader]:
    """The lines of a worker's process, from when it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "queues.work", name, url, "10"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert (await _line(process.stdout)) == "ready"
        yield process.stdout
        process.stdin.close()
        await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _line(lines: asyncio.StreamReader) -> str:
    line = await asyncio.wait_for(lines.readline(), PATIENCE_SECONDS)
    assert line, "the worker has ended"
    return line.decode().strip()


async def measure(name: str, url: str, count: int, seconds: float) -> dict[str, list[float]]:
    stored: list[float] = []
    began: list[float] = []
    async with contestant(name, url, lambda: None) as found, worker(name, url) as lines:
        give_up_at = time.monotonic() + seconds
        for job in range(WARM_UP + count):
            at = time.monotonic()
            if at > give_up_at and job >= WARM_UP + LEAST:
                break
            await found.enqueue()
            stored.append(time.monotonic() - at)
            began.append(float(await _line(lines)) - at)
            await asyncio.sleep(IDLE_SECONDS)
    return {"enqueue": stored[WARM_UP:], "start": began[WARM_UP:]}


if __name__ == "__main__":
    count, seconds = int(sys.argv[3]), float(sys.argv[4])
    print(json.dumps(asyncio.run(measure(sys.argv[1], sys.argv[2], count, seconds))))
