"""However a run of a thread ended, what it leaves is a history that a provider takes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from durably.agents.earlier import conversation
from durably.agents.history import message_to_json
from durably.lifecycle import EffectState, RunState
from durably.records import CallPosition, EarlierRun, Effect, StoredMessage
from support.provider import check_as_a_provider_does

AT = datetime(2026, 3, 1, tzinfo=UTC)

ENVELOPES: dict[EffectState, list[str | None]] = {
    EffectState.DONE: [
        '{"return":{"return_value":{"n":1}}}',
        '{"return":{"kind":"tool-return","return_value":1,"content":["Look."],"metadata":{"a":1}}}',
    ],
    EffectState.FAILED: ['{"failed":"no"}', '{"retry":"again"}'],
    EffectState.DENIED: ['{"failed":"denied"}'],
    EffectState.IN_DOUBT: [None, '{"return":{"return_value":"unknown"}}'],
    EffectState.STARTED: [None],
    EffectState.AWAITING: [None],
}

ids = st.sampled_from(["call_0", "call_1"])
calls = st.lists(ids, max_size=3)
states = st.sampled_from([RunState.COMPLETED, RunState.DISCARDED, RunState.CANCELLED])


@st.composite
def earlier_runs(draw: st.DrawFn) -> EarlierRun:
    """A run that stopped anywhere: between two messages, or with only some calls answered."""
    messages: list[ModelMessage] = []
    for step in range(draw(st.integers(0, 3))):
        messages.append(ModelRequest(parts=[UserPromptPart(f"prompt {step}", timestamp=AT)]))
        made = [ToolCallPart("tool", {}, tool_call_id) for tool_call_id in draw(calls)]
        messages.append(ModelResponse(parts=[*made, TextPart("text")], timestamp=AT))
        answered = made if draw(st.booleans()) else made[: draw(st.integers(0, len(made)))]
        if answered:
            parts = [ToolReturnPart("tool", "ok", c.tool_call_id, timestamp=AT) for c in answered]
            messages.append(ModelRequest(parts=parts))
    stored = [
        StoredMessage(seq, message.kind, 1, message_to_json(message), AT)
        for seq, message in enumerate(messages)
    ]
    effects = [
        _effect(draw, seq, call)
        for seq, message in enumerate(messages)
        if isinstance(message, ModelResponse)
        for call in range(len(message.tool_calls))
        if draw(st.booleans())
    ]
    prompt = json.dumps("unanswered") if draw(st.booleans()) else None
    return EarlierRun("r", draw(states), AT, stored, effects, prompt)


def _effect(draw: st.DrawFn, response: int, call: int) -> Effect:
    state = draw(st.sampled_from(list(EffectState)))
    fields: dict[str, Any] = dict.fromkeys(Effect.__dataclass_fields__)
    fields |= {"position": CallPosition(response, call), "state": state}
    return Effect(**fields | {"result": draw(st.sampled_from(ENVELOPES[state]))})


@given(st.lists(earlier_runs(), max_size=3))
def test_every_call_is_answered_once_and_nothing_else_is(runs: list[EarlierRun]) -> None:
    messages = conversation(runs)
    check_as_a_provider_does([*messages, ModelRequest(parts=[UserPromptPart("next")])])
    stored = [row.body for run in runs for row in run.messages]
    kept = [text for message in messages if (text := message_to_json(message)) in stored]
    assert kept == stored, "what is stored is as it was"


@given(earlier_runs())
def test_conversation_is_the_same_each_time(run: EarlierRun) -> None:
    """So that a provider's cache of it holds."""
    assert conversation([run]) == conversation([run])
