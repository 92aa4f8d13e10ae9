"""pydantic-ai-harness: its StepPersistence on SQLite."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from pydantic_ai_harness.step_persistence import SqliteStepStore, StepPersistence

from runs.contestant import Place, RunOne
from runs.scripted import NO_LIMITS, PROMPT, agent_for
from runs.workload import Workload


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    store = SqliteStepStore(database=place.file)
    agent = agent_for(workload, capabilities=[StepPersistence(store=store, agent_name="scripted")])

    async def one(key: str) -> None:
        await agent.run(PROMPT, usage_limits=NO_LIMITS)

    yield one
