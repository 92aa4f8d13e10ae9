"""durably as its README shows it: enqueue, a worker, the result."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from typing import Any, Self

import psycopg
from pydantic_ai import Agent

from durably import Durably, Run, current_call, effects
from runs.contestant import Place, RunOne
from runs.scripted import NO_LIMITS, PROMPT, Tool, agent_for
from runs.workload import Workload

METADATA: dict[str, dict[str, Any]] = {
    "read": effects.READ,
    "idempotent": effects.IDEMPOTENT,
    "once": effects.once(),
    "transactional": effects.TRANSACTIONAL,
}

TABLE = "CREATE TABLE seen (item integer NOT NULL)"
INSERT = "INSERT INTO seen VALUES (42)"


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    async with working(place, workload) as (app, agent), Watcher() as watcher:

        async def one(key: str) -> None:
            run = await app.enqueue(agent, PROMPT, key=key)
            await (run.result() if workload.concurrency == 1 else watcher.end_of(run))
            run.output()

        yield one


class Watcher:
    """Looks for the ends of runs as a client elsewhere would, which the worker knows nothing of.

    With `result()` each of five hundred tasks would look at the ledger by itself, in the process
    whose CPU is measured. This looks at one run at a time, the oldest, which ends first or nearly.
    """

    LOOK_SECONDS = 0.01

    def __init__(self) -> None:
        self._runs: deque[tuple[Run[str], asyncio.Event]] = deque()
        self._come = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._watching is not None
        self._watching.cancel()

    async def end_of(self, run: Run[str]) -> None:
        ended = asyncio.Event()
        self._runs.append((run, ended))
        self._come.set()
        await ended.wait()

    async def _watch(self) -> None:
        while True:
            await self._come.wait()
            while self._runs:
                run, ended = self._runs[0]
                await run.refresh()
                if run.state.final:
                    ended.set()
                    self._runs.popleft()
                else:
                    await asyncio.sleep(self.LOOK_SECONDS)
            self._come.clear()


@asynccontextmanager
async def working(
    place: Place, workload: Workload
) -> AsyncGenerator[tuple[Durably, Agent[None, str]]]:
    """An application whose worker works meanwhile."""
    tool = None
    if workload.policy == "transactional":
        make_table(place)
        tool = writing_tool(place, workload)
    agent = agent_for(workload, tool, dict(METADATA[workload.policy]))
    app = Durably(place.url or f"sqlite:///{place.file}")
    app.register(agent, usage_limits=NO_LIMITS)
    await app.migrate()
    async with app, app.worker({"agents": workload.concurrency}):
        yield app, agent


def make_table(place: Place) -> None:
    if place.url:
        with psycopg.connect(place.url, autocommit=True) as connection:
            connection.execute(TABLE)
    else:
        assert place.file is not None
        with closing(sqlite3.connect(place.file)) as connection:
            connection.execute(TABLE)


def writing_tool(place: Place, workload: Workload) -> Tool:
    """A tool that writes a row of the application's in the ledger's transaction."""

    async def asynchronous(item: int) -> str:
        async with current_call().transaction() as connection:
            await connection.execute(INSERT)
        return workload.text

    def synchronous(item: int) -> str:
        with current_call().transaction() as connection:
            connection.execute(INSERT)
        return workload.text

    return asynchronous if place.url else synchronous
