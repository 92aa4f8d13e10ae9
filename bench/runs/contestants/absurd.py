"""pydantic-ai with Absurd: a task around `agent.run`, and a worker in the same process.

Each model request and each tool call is a step of the task, as its integration has it
(pydantic-ai-absurd, which in its newest version 0.8 cannot be imported beside the pydantic-ai that
durably is measured on).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import absurdctl
import psycopg
from absurd_sdk import AsyncAbsurd, AsyncTaskContext, get_current_context
from pydantic import TypeAdapter
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from runs.contestant import Place, RunOne
from runs.scripted import NO_LIMITS, PROMPT, Tool, agent_for, model_for
from runs.workload import Workload

RESPONSE = TypeAdapter(ModelResponse)


class SteppedModel(WrapperModel):
    """Each request is a step of the task."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        async def ask() -> Any:
            response = await self.wrapped.request(
                messages, model_settings, model_request_parameters
            )
            return RESPONSE.dump_python(response, mode="json")

        return RESPONSE.validate_python(await context().step("model", ask))


def stepped_tool(workload: Workload) -> Tool:
    async def look(item: int) -> str:
        async def act() -> str:
            return workload.text

        return await context().step("look", act)

    return look


def context() -> AsyncTaskContext:
    current = get_current_context()
    assert isinstance(current, AsyncTaskContext)
    return current


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    assert place.url is not None
    with psycopg.connect(place.url, autocommit=True) as connection:
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL.encode())
    agent = agent_for(workload, stepped_tool(workload))
    agent.model = SteppedModel(model_for(workload))
    worker = AsyncAbsurd(place.url, queue_name="agents")
    client = AsyncAbsurd(place.url, queue_name="agents")
    await client.create_queue()

    @worker.register_task(name="ask")
    async def ask(params: Any, context: Any) -> Any:
        # Steps of one name are told apart by their order, which has to be the same always.
        with agent.parallel_tool_call_execution_mode("sequential"):
            result = await agent.run(params["prompt"], usage_limits=NO_LIMITS)
        return {"output": result.output}

    async def one(key: str) -> None:
        task = await client.spawn("ask", {"prompt": PROMPT}, queue="agents", idempotency_key=key)
        result = await client.await_task_result(task["task_id"])
        assert result.state == "completed", result

    # A task that outlasts its claim is taken away from it: what is measured must not be.
    working = asyncio.create_task(
        worker.start_worker(concurrency=workload.concurrency, claim_timeout=3600)
    )
    try:
        yield one
    finally:
        worker.stop_worker()
        await asyncio.wait_for(working, 10)
        await worker.close()
        await client.close()
