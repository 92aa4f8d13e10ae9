"""A clerk whose work can be held up, and Oban's jobs as others see them: for tests on Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Durably, RetryPolicy, effects

PATIENCE_SECONDS = 120.0
SOON = RetryPolicy(initial_seconds=0.0, max_seconds=0.0, jitter=0.0)


@dataclass
class Clerk:
    """An agent that asks for one tool call and answers; what it does can be held up, or fail.

    Attributes:
        worked: the keys whose tool ran, in order.
        gate: tools wait for it; open from the start.
        failures: how often the next tools fail.
    """

    worked: list[str] = field(default_factory=list[str])
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0

    def agent(self) -> Agent[None, str]:
        agent = Agent(FunctionModel(self._answer), name="clerk")

        @agent.tool_plain(metadata=effects.READ)
        async def work(what: str) -> str:
            self.worked.append(what)
            if self.failures:
                self.failures -= 1
                raise RuntimeError("the printer burns")
            await self.gate.wait()
            return "done"

        return agent

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse([TextPart("answered")])
        content = str(messages[0].parts[-1].content)  # type: ignore[union-attr]
        return ModelResponse([ToolCallPart("work", {"what": content})])


class Jobs:
    """Oban's table, as anybody with the database's password sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def sql(self, query: str, *params: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            cursor = connection.execute(query.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def of(self, key: str) -> list[dict[str, Any]]:
        """The jobs of a run, first to last."""
        return self.sql("SELECT * FROM oban_jobs WHERE args->>'key' = %s ORDER BY id", key)

    def states(self, key: str) -> list[str]:
        return [job["state"] for job in self.of(key)]

    def insert(self, args: str, queue: str = "agents", **columns: object) -> int:
        """A job as somebody else inserts it."""
        names = "".join(f", {name}" for name in columns)
        marks = ", %s" * len(columns)
        return self.sql(
            f"INSERT INTO oban_jobs (worker, queue, args{names}) "
            f"VALUES ('durably.RunAgent', %s, %s{marks}) RETURNING id",
            queue,
            args,
            *columns.values(),
        )[0]["id"]


async def until(condition: Callable[[], Awaitable[bool] | bool], what: str) -> None:
    """Wait for a condition, for as long as a slow machine may need."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                holds = condition()
                if holds if isinstance(holds, bool) else await holds:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


def make_app(url: str, clerk: Clerk) -> Durably:
    """An app with the clerk, whose failed attempts are repeated at once."""
    app = Durably(url)
    app.register(clerk.agent(), retry=SOON)
    return app
