"""DBOS's queues, which are polled: as often as they are by default."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from dbos import DBOS, DBOSClient, run_dbos_database_migrations

from queues.contestant import Started

QUEUE, WORKFLOW, VERSION = "noop", "noop", "1"

NEEDED_SQLITE = (3, 42)
"""The first with `unixepoch('subsec')`, which its tables are made with."""


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
    elif sqlite3.sqlite_version_info < NEEDED_SQLITE:
        _use_newer_sqlite()
    run_dbos_database_migrations(system_database_url=url)
    client = DBOSClient(system_database_url=url)
    try:
        yield DbosJobs(url, client, started)
    finally:
        client.destroy()


def _use_newer_sqlite() -> None:
    """For all of this process: neither its client nor its migrations can be given a driver."""
    import pysqlite3
    import pysqlite3.dbapi2

    sys.modules["sqlite3"], sys.modules["sqlite3.dbapi2"] = pysqlite3, pysqlite3.dbapi2
