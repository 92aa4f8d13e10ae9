"""Nothing but `agent.run`."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from runs.contestant import Place, RunOne
from runs.scripted import NO_LIMITS, PROMPT, agent_for
from runs.workload import Workload


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    agent = agent_for(workload)

    async def one(key: str) -> None:
        await agent.run(PROMPT, usage_limits=NO_LIMITS)

    yield one
