"""durably as its README shows it: enqueue, a worker, the result."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from typing import Any

import psycopg
from pydantic_ai import Agent

from durably import Durably, current_call, effects
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
    async with working(place, workload) as (app, agent):

        async def one(key: str) -> None:
            run = await app.enqueue(agent, PROMPT, key=key)
            await run.result()

        yield one


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
