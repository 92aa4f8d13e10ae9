"""pgqueuer, on psycopg as the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import psycopg
from pgqueuer import Job, PgQueuer, PsycopgDriver, Queries

from queues.contestant import Started

ENTRYPOINT = "noop"


class PgqueuerJobs:
    bulk = True

    def __init__(self, url: str, queries: Queries, started: Started) -> None:
        self._url = url
        self._queries = queries
        self._started = started

    async def enqueue(self) -> None:
        await self._queries.enqueue(ENTRYPOINT, None)

    async def enqueue_many(self, count: int) -> None:
        await self._queries.enqueue([ENTRYPOINT] * count, [None] * count, [0] * count)

    @asynccontextmanager
    async def working(self, limit: int) -> AsyncGenerator[None]:
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            queue = PgQueuer.from_psycopg_connection(connection)

            @queue.entrypoint(ENTRYPOINT)
            async def noop(job: Job) -> None:
                self._started()

            work = asyncio.create_task(
                queue.run(batch_size=min(limit, 10), max_concurrent_tasks=max(limit, 20))
            )
            try:
                yield
            finally:
                queue.shutdown.set()
                work.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await work


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[PgqueuerJobs]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        queries = Queries(PsycopgDriver(connection))
        with suppress(psycopg.errors.DuplicateObject, psycopg.errors.DuplicateTable):
            await queries.install()
        yield PgqueuerJobs(url, queries, started)
