"""Two writes about one run in slow motion: the first stops right before its commit, until the other
one is through or waits for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from durably.ledger.operations import Operation
from durably.ledger.postgres.database import PostgresDatabase
from support.ledgers import PATIENCE_SECONDS, Ledger, PostgresBackend, until


@dataclass
class Paused:
    """A write that stops right before its commit."""

    task: asyncio.Task[Any] = field(init=False)
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def operation(self, job: Callable[[], Operation[Any]]) -> Operation[Any]:
        result = yield from job()
        self.reached.set()
        assert self.go_on.wait(PATIENCE_SECONDS)
        return result

    async def end(self) -> Any:
        self.go_on.set()
        return await self.task


async def paused(ledger: Ledger, operation: Callable[..., Operation[Any]], *args: Any) -> Paused:
    pause = Paused()
    write = ledger.write(pause.operation, lambda: operation(*args))
    pause.task = asyncio.create_task(write)
    assert await asyncio.to_thread(pause.reached.wait, PATIENCE_SECONDS)
    return pause


async def through_or_waiting(task: asyncio.Task[Any], url: str) -> None:
    """Wait until a write is committed, or waits for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with psycopg.connect(url, autocommit=True) as connection:

        def known() -> bool:
            row = connection.execute(waiting).fetchone()
            return task.done() or (row is not None and row[0] > 0)

        await until(known, "it is through, or it waits")


async def second(
    other: PostgresDatabase, pg: PostgresBackend, operation: Callable[..., Operation[Any]], *a: Any
) -> asyncio.Task[Any]:
    """Begin the second write, and let it come as far as it can."""
    task = asyncio.create_task(other.write(operation, *a))
    await through_or_waiting(task, pg.url)
    return task
