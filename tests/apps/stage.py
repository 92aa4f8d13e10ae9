"""An application for tests that look at it: its model says what the prompt tells it to.

A prompt is JSON: a list of responses, each a list of pieces: ``{"text": ...}``, ``{"thinking":
...}``, ``{"call": tool, "args": text}``, more of whose ``args`` may come in ``{"more": ...}``, and
``{"wait": name}``, until the folder ``STAGE`` has a file of that name, or ``{"fail": why}``. The
ledger is DURABLY_URL's.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic_ai import Agent, BinaryContent
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingCalls,
    DeltaThinkingPart,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)

from durably import Durably, RetryPolicy, effects, human

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc0f01f0005000201a5f645"
    "400000000049454e44ae426082"
)


async def there_is(name: str) -> None:
    while not (Path(os.environ["STAGE"]) / name).exists():
        await asyncio.sleep(0.02)


def note(what: str) -> None:
    with (Path(os.environ["STAGE"]) / "notes.txt").open("a") as notes:
        notes.write(f"{what}\n")


async def _stream(
    messages: list[ModelMessage], info: AgentInfo
) -> AsyncIterator[str | DeltaToolCalls | DeltaThinkingCalls]:
    (prompt,) = [part.content for part in messages[0].parts if part.part_kind == "user-prompt"]
    text = prompt if isinstance(prompt, str) else prompt[0]
    responses: list[list[dict[str, Any]]] = json.loads(str(text))
    done = sum(isinstance(message, ModelResponse) for message in messages)
    index = 10
    for piece in responses[done]:
        if "wait" in piece:
            await there_is(piece["wait"])
        elif "fail" in piece:
            raise RuntimeError(piece["fail"])
        elif "text" in piece:
            yield piece["text"]
        elif "thinking" in piece:
            yield {0: DeltaThinkingPart(content=piece["thinking"])}
        elif "call" in piece:
            index += 1
            # An id that providers repeat, on purpose.
            called = DeltaToolCall(
                piece["call"], piece.get("args", "{}"), tool_call_id=f"call_{index}"
            )
            yield {index: called}
        else:
            yield {index: DeltaToolCall(None, piece["more"], tool_call_id=f"call_{index}")}


def _agent(name: str) -> Agent[None, str]:
    agent = Agent(
        FunctionModel(stream_function=_stream, model_name="scripted"),
        name=name,
        instructions="Do what the prompt says.",
        toolsets=[human.toolset()],
    )

    @agent.tool_plain(metadata=effects.READ)
    def look_up(number: int) -> dict[str, Any]:
        """Look up an order."""
        return {"number": number, "items": ["lamp", "rug"]}

    @agent.tool_plain(metadata=effects.READ)
    def say(value: Any) -> Any:
        """Return what it is given."""
        return value

    @agent.tool_plain(metadata=effects.READ)
    def picture() -> list[Any]:
        """Return an image, and one that is none."""
        return [
            BinaryContent(PNG, media_type="image/png"),
            BinaryContent(b"<script>alert(1)</script>", media_type="image/png"),
        ]

    @agent.tool_plain(metadata=effects.once(approve=True))
    def refund(order: int, cents: int) -> str:
        """Pay money back."""
        note(f"refund {order} {cents}")
        return f"refunded {cents}"

    @agent.tool_plain(metadata=effects.once())
    async def charge(cents: int, until: str = "") -> str:
        """Charge a card; returns once there is a file."""
        note(f"charge {cents}")
        if until:
            await there_is(until)
        return f"charged {cents}"

    return agent


actor = _agent("actor")
fragile = _agent("fragile")


def make() -> Durably:
    """The application, with the ledger that the environment names now."""
    app = Durably()
    soon = RetryPolicy(initial_seconds=0.0, max_seconds=0.0, jitter=0.0)
    app.register(actor, stream=True, retry=soon, max_attempts=2)
    app.register(fragile, stream=True, retry=soon, queue="fragile")
    return app
