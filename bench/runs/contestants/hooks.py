"""`agent.run` with the hooks of durably, which do nothing: what pydantic-ai takes for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from pydantic_ai.capabilities import AbstractCapability

from runs.contestant import Place, RunOne
from runs.scripted import NO_LIMITS, PROMPT, agent_for
from runs.workload import Workload


class Hooks(AbstractCapability[Any]):
    """Around a run, its model requests, its tool calls and what they are given."""

    async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:
        return await handler()

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        return await handler(request_context)

    async def wrap_tool_validate(
        self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any
    ) -> Any:
        return await handler(args)

    async def wrap_tool_execute(
        self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any
    ) -> Any:
        return await handler(args)


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    yield running(workload, Hooks())


def running(workload: Workload, hooks: AbstractCapability[Any]) -> RunOne:
    """Runs of the workload's agent with these hooks."""
    agent = agent_for(workload, capabilities=[hooks])

    async def one(key: str) -> None:
        await agent.run(PROMPT, usage_limits=NO_LIMITS)

    return one
