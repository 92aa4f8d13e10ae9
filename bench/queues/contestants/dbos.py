"""DBOS's queues, which are polled: as often as they are by default."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from dbos import DBOS, DBOSClient, run_dbos_database_migrations

from newer_sqlite import use_newer_sqlite
from queues.contestant import Started

QUEUE, WORKFLOW, VERSION = "noop", "noop", "1"


class DbosJobs:
    bulk = False

    def __init__(self, url: str, client: DBOSClient, started: Started) -> None:
        self._url = url
        self._client = client
        self._started = started

    async def enqueue(self) -> None:
        await self._client.enqueue_async({"queue_name": QUEUE, "workflow_name": WORKFLOW})

    async def enqueue_many(self, count: int) -> None:
        for _ in range(count):
            await self.enqueue()

    @asynccontextmanager
    async def working(self, limit: int) -> AsyncGenerator[None]:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": self._url,
                "application_version": VERSION,
                "log_level": "ERROR",
            }
        )

        @DBOS.workflow(name=WORKFLOW)
        async def noop() -> None:
            self._started()

        DBOS.launch()
        try:
            await DBOS.register_queue_async(QUEUE, worker_concurrency=limit)
            yield
        finally:
            DBOS.destroy()


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[DbosJobs]:
    if url.startswith("postgresql"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    else:
        use_newer_sqlite()
    run_dbos_database_migrations(system_database_url=url)
    client = DBOSClient(system_database_url=url)
    try:
        yield DbosJobs(url, client, started)
    finally:
        client.destroy()
