"""An application whose only agent never ends, in short steps: it can be killed, or told to leave,
in the middle of its run.
"""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import UsageLimits

from durably import Durably, effects

STEP_SECONDS = 0.05


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return ModelResponse([ToolCallPart("pause", {})])


agent = Agent(FunctionModel(answer), name="looping")


@agent.tool_plain(metadata=effects.READ)
async def pause() -> str:
    await asyncio.sleep(STEP_SECONDS)
    return "done"


def make() -> Durably:
    """The application, on the ledger that the environment names."""
    app = Durably()
    app.register(agent, usage_limits=UsageLimits(request_limit=None))
    return app
