"""oban-py. Its tables are there: durably's are beside them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from oban import Job, Oban, worker
from psycopg_pool import AsyncConnectionPool

from queues.contestant import Started

QUEUE = "noop"


class ObanJobs:
    bulk = True

    def __init__(self, pool: AsyncConnectionPool[Any], client: Oban, job: Any) -> None:
        self._pool = pool
        self._client = client
        self._job = job

    async def enqueue(self) -> None:
        await self._client.enqueue(self._job.new({}))

    async def enqueue_many(self, count: int) -> None:
        await self._client.enqueue_many(self._job.new({}) for _ in range(count))

    @asynccontextmanager
    async def working(self, limit: int) -> AsyncGenerator[None]:
        async with Oban(pool=self._pool, name="worker", queues={QUEUE: limit}):
            yield


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[ObanJobs]:
    @worker(queue=QUEUE)
    class Noop:
        async def process(self, job: Job) -> None:
            started()

    async with (
        AsyncConnectionPool(url, min_size=2, max_size=10, open=False) as pool,
        Oban(pool=pool, name="client", queues={}) as client,
    ):
        yield ObanJobs(pool, client, Noop)
