"""A provider's own look at what it is sent."""

from __future__ import annotations

from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    RetryPromptPart,
    ToolReturnPart,
    UserPromptPart,
)


def check_as_a_provider_does(messages: list[ModelMessage]) -> None:
    """Every call answered exactly once by what follows it, and no answer without its call."""
    open_calls: list[str] = []
    for message in messages:
        if isinstance(message, ModelResponse):
            assert not open_calls, f"calls without an answer: {open_calls}"
            open_calls = [part.tool_call_id for part in message.tool_calls]
            continue
        for part in message.parts:
            if isinstance(part, ToolReturnPart) or (
                isinstance(part, RetryPromptPart) and part.tool_name is not None
            ):
                assert part.tool_call_id in open_calls, f"an answer without its call: {part}"
                open_calls.remove(part.tool_call_id)
            elif isinstance(part, UserPromptPart):
                assert not open_calls, f"calls without an answer: {open_calls}"
    assert not open_calls, f"calls without an answer: {open_calls}"
