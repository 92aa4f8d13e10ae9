"""durably, with an agent whose model answers at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Durably
from queues.contestant import Started

QUEUE = "agents"


class Runs:
    """Runs of one agent.

    Args:
        app: with the agent ``noop``.
    """

    bulk = True

    def __init__(self, app: Durably) -> None:
        self.app = app

    async def enqueue(self) -> None:
        await self.app.enqueue("noop", "hi")

    async def enqueue_many(self, count: int) -> None:
        await self.app.enqueue_many("noop", ["hi"] * count)

    @asynccontextmanager
    async def working(self, limit: int) -> AsyncGenerator[None]:
        async with self.app.worker({QUEUE: limit}):
            yield


@asynccontextmanager
async def opened(url: str, started: Started) -> AsyncGenerator[Runs]:
    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        started()
        return ModelResponse([TextPart("ok")])

    async with Durably(url, agents=[Agent(FunctionModel(answer), name="noop")]) as app:
        yield Runs(app)
