"""What models, tools and people say, in any words: their run ends, and no other is touched."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Durably, RetryPolicy, current_call, effects
from durably.errors import DurablyError

NOW = RetryPolicy(initial_seconds=0, jitter=0)

ODD = pytest.mark.parametrize("odd", ["\0", "\ud800", "\U0010ffff"], ids=["nul", "half", "last"])


@ODD
async def test_a_tool_may_fail_in_any_words(app_url: str, odd: str) -> None:
    def call(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        return ModelResponse([ToolCallPart("act", {}, "a")])

    agent: Agent[None, str] = Agent(FunctionModel(call), name="odd")

    @agent.tool_plain(metadata=effects.READ)
    def act() -> str:
        raise RuntimeError(f"broken{odd}here")

    async with Durably(app_url) as app:
        app.register(agent, retry=NOW, max_attempts=2)
        run = await app.enqueue(agent, "x", key="k")
        await app.drain()
        ended = await run.refresh()
        assert ended.state == "discarded", "each attempt was settled, and counted"
        assert ended.record.failures == 2
        assert (ended.record.error or "").startswith("RuntimeError: broken")


@ODD
@pytest.mark.parametrize("as_json", [False, True], ids=["object", "text"])
@pytest.mark.parametrize("policy", [effects.READ, effects.once()], ids=["READ", "once"])
async def test_a_model_may_call_a_tool_with_any_text(
    app_url: str, odd: str, as_json: bool, policy: dict[str, Any]
) -> None:
    """The run ends: completed with just these arguments, or discarded, and says why."""
    acted: list[str] = []
    text = f"a{odd}b"
    args = json.dumps({"text": text}) if as_json else {"text": text}

    def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        if any(isinstance(message, ModelResponse) for message in messages):
            return ModelResponse([TextPart(f"done {text}")])
        return ModelResponse([ToolCallPart("act", args, f"id{odd}")])

    agent: Agent[None, str] = Agent(FunctionModel(answer), name="odd")

    @agent.tool_plain(metadata=policy)
    def act(text: str) -> str:
        acted.append(current_call().args["text"])
        return text

    async with Durably(app_url) as app:
        app.register(agent, retry=NOW, max_attempts=2)
        run = await app.enqueue(agent, "x", key="k")
        beside = await app.enqueue(agent, "y", key="beside")
        await app.drain()
        for one in (run, beside):
            ended = await one.refresh()
            assert ended.state.final, (ended.state, ended.record.error)
            if ended.state == "completed":
                assert ended.output() == f"done {text}"
                assert len(await ended.history()) == 4
            else:
                assert ended.record.error
        assert set(acted) <= {text}
        assert len(acted) <= 2, "nothing was done twice"


@ODD
async def test_a_prompt_may_be_any_text(app_url: str, odd: str) -> None:
    """It is stored as it is and comes back so, or is refused before anything is stored."""
    seen: list[Any] = []

    def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        seen.append(getattr(messages[0].parts[-1], "content", None))
        return ModelResponse([TextPart("done")])

    agent: Agent[None, str] = Agent(FunctionModel(answer), name="odd")
    text = f"a{odd}b"
    async with Durably(app_url, agents=[agent]) as app:
        try:
            await app.enqueue(agent, text, key="k")
        except DurablyError as error:
            assert str(error) and not await app.runs()
            return
        await app.drain()
        run = await app.get("k")
        assert (run.state, run.output(), seen) == ("completed", "done", [text])
