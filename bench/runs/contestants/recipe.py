"""The plain recipe: a row with a key, and an Oban job that runs the agent and saves its history."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from oban import Oban, worker
from oban.schema import install
from psycopg_pool import AsyncConnectionPool
from pydantic_ai.messages import ModelMessagesTypeAdapter

from runs.contestant import Place, RunOne
from runs.scripted import NO_LIMITS, PROMPT, agent_for
from runs.workload import Workload

TABLE = """
CREATE TABLE agent_runs (
    key text PRIMARY KEY, prompt text NOT NULL, status text NOT NULL DEFAULT 'pending',
    history jsonb, output text
)
"""


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    assert place.url is not None
    agent = agent_for(workload)
    ended: dict[str, asyncio.Event] = {}
    async with AsyncConnectionPool(place.url, min_size=4, max_size=10, open=False) as pool:
        await install(pool)
        async with pool.connection() as connection:
            await connection.execute(TABLE)

        @worker(queue="agents", max_attempts=5)
        class Ask:
            async def process(self, job: Any) -> None:
                key = job.args["key"]
                prompt, status = await load(pool, key)
                if status != "completed":
                    result = await agent.run(prompt, usage_limits=NO_LIMITS)
                    history = ModelMessagesTypeAdapter.dump_json(result.all_messages())
                    await save(pool, key, history.decode(), result.output)
                ended[key].set()

        async def one(key: str) -> None:
            ended[key] = asyncio.Event()
            async with pool.connection() as connection, connection.transaction():
                insert = "INSERT INTO agent_runs (key, prompt) VALUES (%s, %s)"
                await connection.execute(insert, (key, PROMPT))
                await Ask.enqueue({"key": key}, conn=connection)
            await ended[key].wait()
            del ended[key]

        async with Oban(pool=pool, queues={"agents": workload.concurrency}):
            yield one


async def load(pool: AsyncConnectionPool[Any], key: str) -> tuple[str, str]:
    async with pool.connection() as connection:
        rows = await connection.execute(
            "SELECT prompt, status FROM agent_runs WHERE key = %s", (key,)
        )
        row = await rows.fetchone()
        assert row is not None
        return row[0], row[1]


async def save(pool: AsyncConnectionPool[Any], key: str, history: str, output: str) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "UPDATE agent_runs SET history = %s, output = %s, status = 'completed' WHERE key = %s",
            (history, output, key),
        )
