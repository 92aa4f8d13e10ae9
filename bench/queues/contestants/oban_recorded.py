"""An oban-py job that records its beginning and its end in a row: the least that whoever must know,
after a crash, what had begun can do with such a job. Nothing that one could use."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from oban import Job, Oban, worker
from psycopg_pool import AsyncConnectionPool

from queues.contestant import Started
from queues.contestants.oban import QUEUE, ObanJobs

_TABLE = """
    CREATE TABLE IF NOT EXISTS recorded (
        job BIGINT PRIMARY KEY, began TIMESTAMPTZ NOT NULL DEFAULT now(), ended TIMESTAMPTZ)
"""
_BEGIN = "INSERT INTO recorded (job) VALUES (%s)"
_END = "UPDATE recorded SET ended = now() WHERE job = %s"


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[ObanJobs]:
    own = {"autocommit": True}
    async with (
        AsyncConnectionPool(url, min_size=2, max_size=10, open=False) as pool,
        AsyncConnectionPool(url, min_size=2, max_size=10, open=False, kwargs=own) as records,
        Oban(pool=pool, name="client", queues={}) as client,
    ):

        async def record(statement: str, job: Job | None = None) -> None:
            async with records.connection() as connection:
                await connection.execute(statement, None if job is None else (job.id,))

        @worker(queue=QUEUE)
        class Recorded:
            async def process(self, job: Job) -> None:
                await record(_BEGIN, job)
                started()
                await record(_END, job)

        await record(_TABLE)
        yield ObanJobs(pool, client, Recorded)
