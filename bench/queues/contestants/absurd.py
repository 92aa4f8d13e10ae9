"""Absurd's tasks, which are polled: as often as they are by default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import AsyncAbsurd

from queues.contestant import Started

QUEUE = "noop"


class AbsurdJobs:
    bulk = False

    def __init__(self, url: str, started: Started) -> None:
        self._url = url
        self._started = started
        self._client = AsyncAbsurd(url, queue_name=QUEUE)

    async def enqueue(self) -> None:
        await self._client.spawn("noop", {}, queue=QUEUE)

    async def enqueue_many(self, count: int) -> None:
        for _ in range(count):
            await self.enqueue()

    @asynccontextmanager
    async def working(self, limit: int) -> AsyncGenerator[None]:
        worker = AsyncAbsurd(self._url, queue_name=QUEUE)

        @worker.register_task("noop")
        async def noop(params: Any, context: Any) -> None:
            self._started()

        work = asyncio.create_task(worker.start_worker(concurrency=limit))
        try:
            yield
        finally:
            worker.stop_worker()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
            await worker.close()

    async def close(self) -> None:
        await self._client.close()


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[AbsurdJobs]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute("SELECT to_regnamespace('absurd')")
        if (await found.fetchone() or (None,))[0] is None:
            await connection.execute(absurdctl.BUNDLED_SCHEMA_SQL.encode())
            await connection.execute("SELECT absurd.create_queue(%s)", (QUEUE,))
    jobs = AbsurdJobs(url, started)
    try:
        yield jobs
    finally:
        await jobs.close()
