"""The least that saves every step before it acts: hooks, pydantic-ai's JSON, one row a step.

Around a once tool there are two rows more: that it may have begun, and its result. No queue, lease,
fence or events: what this takes, everybody takes who has them.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sqlite3
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from psycopg_pool import AsyncConnectionPool
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelMessagesTypeAdapter

from runs.contestant import Place, RunOne
from runs.scripted import NO_LIMITS, PROMPT, agent_for
from runs.workload import Workload

TABLE = "CREATE TABLE steps (run text, number integer, messages text, PRIMARY KEY (run, number))"
INSERT = "INSERT INTO steps VALUES (?, ?, ?)"

Row = tuple[str, int, str]
Save = Callable[[Row], Awaitable[None]]
Saved = asyncio.Future[None]


class Steps(AbstractCapability[Any]):
    """Saves each response, with the messages before it that are new."""

    def __init__(self, save: Save, run: str) -> None:
        self._save = save
        self._run = run
        self._number = 0
        self._saved = 0

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        response = await handler(request_context)
        new = [*ctx.messages[self._saved :], response]
        self._saved += len(new)
        await self._append(ModelMessagesTypeAdapter.dump_json(new).decode())
        return response

    async def _append(self, text: str) -> None:
        self._number += 1
        await self._save((self._run, self._number, text))


class StepsAndCalls(Steps):
    """Saves also that a tool is about to run, and what it returned."""

    async def wrap_tool_execute(
        self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any
    ) -> Any:
        await self._append(json.dumps(args))
        result = await handler(args)
        await self._append(json.dumps(result))
        return result


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    agent = agent_for(workload)
    kind = StepsAndCalls if workload.policy == "once" else Steps
    async with _postgres(place.url) if place.url else _sqlite(place.file) as save:

        async def one(key: str) -> None:
            await agent.run(PROMPT, usage_limits=NO_LIMITS, capabilities=[kind(save, key)])

        yield one


@asynccontextmanager
async def _sqlite(file: Path | None) -> AsyncGenerator[Save]:
    """A thread that commits together what waits together."""
    assert file is not None
    waiting: queue.SimpleQueue[tuple[Row, Saved] | None] = queue.SimpleQueue()
    loop = asyncio.get_running_loop()

    def write() -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(TABLE)
            while (first := waiting.get()) is not None:
                batch = [first]
                while waiting.qsize():
                    if (more := waiting.get()) is None:
                        waiting.put(None)
                        break
                    batch.append(more)
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(INSERT, [row for row, _ in batch])
                connection.execute("COMMIT")
                loop.call_soon_threadsafe(_tell, [saved for _, saved in batch])

    async def save(row: Row) -> None:
        saved: Saved = loop.create_future()
        waiting.put((row, saved))
        await saved

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield save
    finally:
        waiting.put(None)
        thread.join()


def _tell(waiting: list[Saved]) -> None:
    for saved in waiting:
        saved.set_result(None)


@asynccontextmanager
async def _postgres(url: str) -> AsyncGenerator[Save]:
    """A statement a step, on a pool."""
    insert = INSERT.replace("?", "%s")
    pool = AsyncConnectionPool(url, max_size=10, open=False, kwargs={"autocommit": True})
    async with pool:
        async with pool.connection() as connection:
            await connection.execute(TABLE)

        async def save(row: Row) -> None:
            async with pool.connection() as connection:
                await connection.execute(insert, row, prepare=True)

        yield save
