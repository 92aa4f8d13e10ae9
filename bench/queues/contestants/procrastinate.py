"""procrastinate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import procrastinate
from procrastinate.exceptions import ConnectorException

from queues.contestant import Started


class ProcrastinateJobs:
    bulk = True

    def __init__(self, app: procrastinate.App, task: Any) -> None:
        self._app = app
        self._task = task

    async def enqueue(self) -> None:
        await self._task.defer_async()

    async def enqueue_many(self, count: int) -> None:
        await self._task.batch_defer_async(*({} for _ in range(count)))

    @asynccontextmanager
    async def working(self, limit: int) -> AsyncGenerator[None]:
        work = asyncio.create_task(
            self._app.run_worker_async(concurrency=limit, install_signal_handlers=False)
        )
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[ProcrastinateJobs]:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    @app.task(name="noop")
    async def noop() -> None:
        started()

    async with app.open_async():
        with suppress(ConnectorException):  # They are there if another process has made them.
            await app.schema_manager.apply_schema_async()
        yield ProcrastinateJobs(app, noop)
