"""A process that works for one contestant and tells when each job began, on the machine's clock."""

from __future__ import annotations

import asyncio
import sys
import time

from queues.contestant import contestant


async def work(name: str, url: str, limit: int) -> None:
    def started() -> None:
        print(time.monotonic(), flush=True)

    async with contestant(name, url, started) as found, found.working(limit):
        print("ready", flush=True)
        # Until whoever started it has seen enough.
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
