"""Where a tool call stands in its run, found in pydantic-ai's own history.

Owns the count of responses that ties pydantic-ai's messages to the ledger's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    SystemPromptPart,
    ToolCallPart,
)

from durably.records import CallPosition


def last_response(messages: Sequence[ModelMessage]) -> ModelResponse | None:
    """The newest response of a history."""
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            return message
    return None


def count_responses(messages: Sequence[ModelMessage]) -> int:
    """How many responses a history has."""
    return sum(isinstance(message, ModelResponse) for message in messages)


def after_responses(messages: Sequence[ModelMessage], known: int) -> list[ModelMessage]:
    """The messages after the ``known``-th response.

    Responses are counted, not messages, because pydantic-ai merges neighbouring requests. A
    history that was shortened below what is known has only its tail after the last response new.
    """
    total = count_responses(messages)
    wanted = min(known, total)
    if wanted == 0:
        return list(messages)
    seen = 0
    for index, message in enumerate(messages):
        seen += isinstance(message, ModelResponse)
        if seen == wanted:
            return list(messages[index + 1 :])
    return []


def request_parts(messages: Sequence[ModelMessage]) -> list[ModelRequestPart]:
    """Every part of every request among the messages."""
    return [part for m in messages if isinstance(m, ModelRequest) for part in m.parts]


def without_parts(
    messages: Sequence[ModelMessage], parts: Sequence[ModelRequestPart]
) -> list[ModelMessage]:
    """The messages without these parts, and without requests that held nothing else.

    By parts, since pydantic-ai, or a history processor, may have merged neighbouring requests. A
    system prompt that was put before such parts belongs to them.
    """
    if not parts:
        return list(messages)
    kept: list[ModelMessage] = []
    for message in messages:
        if isinstance(message, ModelRequest):
            left = [part for part in message.parts if part not in parts]
            if len(left) < len(message.parts):
                left = [part for part in left if not isinstance(part, SystemPromptPart)]
            if not left and message.parts:
                continue
            if len(left) < len(message.parts):
                message = replace(message, parts=left)
        kept.append(message)
    return kept


def position_of(
    call: ToolCallPart, messages: Sequence[ModelMessage], response_seq: int
) -> CallPosition | None:
    """The position of a call of the last response.

    Returns:
        None for a call that the model did not make itself, such as one that a tool makes through
        another tool: the call around it is the effect.
    """
    response = last_response(messages)
    if response is None:
        return None
    calls = response.tool_calls
    for index, part in enumerate(calls):
        if part is call:
            return CallPosition(response_seq, index)
    for index, part in enumerate(calls):
        if part.tool_call_id == call.tool_call_id and part.tool_name == call.tool_name:
            return CallPosition(response_seq, index)
    return None
