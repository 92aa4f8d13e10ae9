"""durably, with an agent whose model answers at once.

A run starts as a job's body does: with the first of the application's own code, which makes its
deps.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Durably, RunInfo
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
    async with running(url, _nothing, lambda _: started()) as runs:
        yield runs


@asynccontextmanager
async def running(
    url: str, asked: Callable[[], None], deps: Callable[[RunInfo], None] | None
) -> AsyncGenerator[Runs]:
    """Runs of an agent.

    Args:
        asked: called when its model is.
        deps: makes a run's.
    """

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked()
        return ModelResponse([TextPart("ok")])

    app = Durably(url)
    app.register(Agent(FunctionModel(answer), name="noop"), deps=deps)
    async with app:
        yield Runs(app)


def _nothing() -> None:
    pass
