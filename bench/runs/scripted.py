"""The pydantic-ai agent of all contestants but LangGraph's, and its scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage, UsageLimits

from runs.workload import Workload, asked, step_of

PROMPT = "What became of order 42?"

NO_LIMITS = UsageLimits(request_limit=None)

asked_so_far = [0]
"""How often the model of this process was asked."""

Tool = Callable[[int], Awaitable[str]] | Callable[[int], str]


def model_for(workload: Workload) -> FunctionModel:
    """Asks for tools in so many steps, then answers. What it does for a step is the same always."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        asked_so_far[0] += 1
        if workload.latency:
            await asyncio.sleep(workload.latency)
        # Given, so that pydantic-ai does not count the words of the whole history at every step.
        usage = RequestUsage(input_tokens=100, output_tokens=100)
        step = next_step(messages[-1])
        if step == workload.steps:
            return ModelResponse([TextPart("It is all right.")], usage=usage)
        calls = [
            ToolCallPart("look", {"item": call}, tool_call_id=asked(step, call))
            for call in range(workload.tools)
        ]
        return ModelResponse([TextPart(workload.text), *calls], usage=usage)

    return FunctionModel(answer, model_name="scripted")


def next_step(last: ModelMessage) -> int:
    for part in last.parts:
        if isinstance(part, ToolReturnPart):
            return step_of(part.tool_call_id) + 1
    return 0


def agent_for(
    workload: Workload,
    tool: Tool | None = None,
    metadata: dict[str, Any] | None = None,
    capabilities: list[AbstractCapability[Any]] | None = None,
) -> Agent[None, str]:
    """The agent, with a tool that does nothing but answer unless another is given."""

    async def look(item: int) -> str:
        return workload.text

    agent = Agent(model_for(workload), name="scripted", capabilities=capabilities or [])
    agent.tool_plain(name="look", metadata=metadata)(tool or look)
    return agent
