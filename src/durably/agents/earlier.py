"""What a run of a thread starts from: the messages of the runs before it, every call answered.

Owns what is said of calls that nobody answered when their run ended. Nothing of it is stored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ToolCallPart,
    ToolReturn,
    ToolReturnPart,
    UserPromptPart,
)

from durably.agents import recorded
from durably.agents.codec import decode_prompt, decode_result
from durably.agents.doubt import told
from durably.agents.history import message_from_json
from durably.errors import HistoryError
from durably.lifecycle import EffectState
from durably.records import CallPosition, EarlierRun, Effect


def conversation(runs: Sequence[EarlierRun]) -> list[ModelMessage]:
    """The messages of a thread's runs, in order, as the next run starts from them.

    A run that began and has no message gives the prompt that no model has answered; one that never
    began gives nothing. Of a run that is going on, calls are left open.
    """
    return [message for run in runs for message in _left_by(run)]


def _left_by(run: EarlierRun) -> list[ModelMessage]:
    if not run.messages:
        if run.prompt is None:
            return []
        prompt = UserPromptPart(decode_prompt(run.prompt), timestamp=run.inserted_at)
        return [ModelRequest(parts=[prompt])]
    messages = [
        message_from_json(m.body, f"run {run.key!r}, message {m.seq}") for m in run.messages
    ]
    if not run.state.final:
        return messages
    effects = {e.position: e for e in run.effects}
    whole: list[ModelMessage] = []
    asides: list[ModelRequestPart] = []
    for place, message in enumerate(messages):
        if not isinstance(message, ModelResponse):
            whole.append(message)
            continue
        whole += _request(asides, message)
        response = _closed(message)
        answers = [
            part
            for index, call in _unanswered(response, messages, place)
            for part in _answer(
                run, response, call, effects.get(CallPosition(run.messages[place].seq, index))
            )
        ]
        # Results come first, also before those that were stored; what is said beside them last.
        whole += [response, *_request([p for p in answers if _answers(p)], response)]
        asides = [part for part in answers if not _answers(part)]
    return [*whole, *_request(asides, messages[-1])]


def _request(parts: Sequence[ModelRequestPart], beside: ModelMessage) -> list[ModelMessage]:
    """A request with these parts, if there are any; as old as its neighbour, so always the same."""
    return [ModelRequest(parts=list(parts), timestamp=beside.timestamp)] if parts else []


def _closed(response: ModelResponse) -> ModelResponse:
    """A response that its provider has not finished will not be: a run that ended asks no more."""
    if response.state == "suspended":
        return replace(response, state="interrupted")
    return response


def _unanswered(
    response: ModelResponse, messages: Sequence[ModelMessage], place: int
) -> list[tuple[int, ToolCallPart]]:
    """The calls of the response at this place that nothing before the next one answers, with where
    they stand in it.

    Of calls with the same id, the first answer is the first one's.
    """
    answered: list[str] = []
    for following in range(place + 1, len(messages)):
        message = messages[following]
        if isinstance(message, ModelResponse):
            break
        answered += [part_id for part in message.parts if (part_id := _answers(part)) is not None]
    left: list[tuple[int, ToolCallPart]] = []
    for index, call in enumerate(response.tool_calls):
        if call.tool_call_id in answered:
            answered.remove(call.tool_call_id)
        else:
            left.append((index, call))
    return left


def _answers(part: ModelRequestPart) -> str | None:
    """The id of the call that a part answers; None if it answers none."""
    fields: Any = part
    is_answer = part.part_kind == "tool-return" or (
        part.part_kind == "retry-prompt" and fields.tool_name is not None
    )
    return fields.tool_call_id if is_answer else None


def _answer(
    run: EarlierRun, response: ModelResponse, call: ToolCallPart, effect: Effect | None
) -> list[ModelRequestPart]:
    """What the model is told of a call that was not answered: what is recorded, or what is not."""
    outcome: dict[str, Any] = {"outcome": "interrupted"}
    content: object = _never_answered(run, call)
    extra: object = None
    if effect is not None and effect.result is not None:
        outcome, content, extra = _recorded(
            effect.result, denied=effect.state is EffectState.DENIED
        )
    elif effect is not None and effect.state in (EffectState.STARTED, EffectState.IN_DOUBT):
        content = told(call.tool_name, effect.error)
    elif effect is not None and effect.state is EffectState.AWAITING:
        content = f"This call did not happen: run {run.key!r} was {run.state} while it waited."
    answer = ToolReturnPart(
        call.tool_name, content, call.tool_call_id, timestamp=response.timestamp, **outcome
    )
    if not extra:
        return [answer]
    return [answer, UserPromptPart(cast("Any", extra), timestamp=response.timestamp)]


def _recorded(envelope: str, *, denied: bool) -> tuple[dict[str, Any], object, object]:
    """How a recorded outcome (see ``recorded``) reads in a tool's answer; the last is what a tool
    wanted said beside its result."""
    recorded.check(envelope)
    data = json.loads(envelope)
    (kind,) = data
    match kind:
        case "return":
            value = decode_result(json.dumps(data["return"]))
            if isinstance(value, ToolReturn):
                whole = cast("ToolReturn[Any]", value)
                return {"metadata": whole.metadata}, whole.return_value, whole.content
            return {}, value, None
        case "retry_part":
            (part,) = cast("Any", message_from_json(json.dumps(data["retry_part"]))).parts
            return {"outcome": "failed"}, _text_of(part), None
        case "retry" | "failed":
            return {"outcome": "denied" if denied else "failed"}, data[kind], None
        case _:
            raise HistoryError(f"a recorded tool outcome has the unknown kind {kind!r}")


def _text_of(part: Any) -> str:
    return part.content if isinstance(part.content, str) else json.dumps(part.content, default=str)


def _never_answered(run: EarlierRun, call: ToolCallPart) -> str:
    return (
        f"This call of {call.tool_name!r} has no result: run {run.key!r} was {run.state} before it "
        "was answered. If it was made at all, nothing is known of how it ended."
    )
