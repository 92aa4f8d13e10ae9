"""What tools say in their own words: an attempt ends with it, however it is written."""

from __future__ import annotations

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Durably, RetryPolicy, effects


@pytest.mark.parametrize("odd", ["\0", "\ud800", "\U0010ffff"], ids=["nul", "half", "last"])
async def test_a_tool_may_fail_in_any_words(app_url: str, odd: str) -> None:
    def call(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("act", {}, "a")])

    agent: Agent[None, str] = Agent(FunctionModel(call), name="odd")

    @agent.tool_plain(metadata=effects.READ)
    def act() -> str:
        raise RuntimeError(f"broken{odd}here")

    async with Durably(app_url) as app:
        app.register(agent, retry=RetryPolicy(initial_seconds=0, jitter=0), max_attempts=2)
        run = await app.enqueue(agent, "x", key="k")
        await app.drain()
        ended = await run.refresh()
        assert ended.state == "discarded", "each attempt was settled, and counted"
        assert ended.record.failures == 2
        assert (ended.record.error or "").startswith("RuntimeError: broken")
