"""A run's messages as a person reads them: who said what, which tools were called, how they ended.

Pure: from stored JSON and effects to frozen records, whatever the JSON holds; unknown and damaged
parts are shown as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from durably.lifecycle import EffectState
from durably.records import Attempt, Effect, StoredMessage
from durably.web.views import markdown
from durably.web.views.files import File, file_from, is_file
from durably.web.views.text import one_line, visible
from durably.web.views.turns import Answer, Call, Inside, Part, Raw, Result, Said, Turn
from durably.web.views.values import fields_of, is_list, items_of, parsed, shown, text_of

type _Read = tuple[StoredMessage, dict[str, Any]]
"""A message with its JSON's fields."""

type _Ref = tuple[int, str]
"""The position of a message, and the id by which its calls are answered."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What parts need to know of the rest."""

    effects: dict[str, Effect] = field(default_factory=dict[str, Effect])
    inside: dict[str, list[Effect]] = field(default_factory=dict[str, list[Effect]])
    answers: dict[_Ref, Answer] = field(default_factory=dict["_Ref", Answer])
    running: set[_Ref] = field(default_factory=set["_Ref"])


def conversation(
    messages: Sequence[StoredMessage],
    effects: Sequence[Effect] = (),
    attempts: Sequence[Attempt] = (),
    *,
    known: StoredMessage | None = None,
    running: frozenset[str] = frozenset(),
) -> list[Turn]:
    """The turns of consecutive messages.

    Args:
        effects: for what became of each call.
        attempts: for who took over where.
        known: the message before the first, which the reader has seen.
        running: the ids of calls of the last response that are being made.
    """
    bodies = [(message, fields_of(parsed(message.body))) for message in messages]
    responses = [message.seq for message in messages if message.kind == "response"]
    about = _Known(
        {e.call_id: e for e in effects},
        _steps_by_call(effects),
        _answers(bodies),
        {(responses[-1], ref) for ref in running} if responses else set(),
    )
    by_number = {attempt.attempt: attempt for attempt in attempts}
    shown_calls = _calls_in(bodies)
    before = known
    said = fields_of(parsed(known.body)).get("instructions") if known else None
    turns: list[Turn] = []
    for message, body in bodies:
        parts = list(_parts(message, body, about, shown_calls))
        instructions = body.get("instructions")
        if isinstance(instructions, str) and instructions and instructions != said:
            said = instructions
            parts.insert(0, _said("system", instructions, -1))
        changes = message.attempt > 1 and (before is None or before.attempt != message.attempt)
        if parts:
            turns.append(
                Turn(
                    message.seq,
                    message.kind,
                    message.attempt,
                    message.inserted_at,
                    tuple(parts),
                    model=one_line(visible(text_of(body.get("model_name"))), 60),
                    tokens=_tokens(body),
                    begins=by_number.get(message.attempt) if changes else None,
                    ended=_ended(attempts, before, message) if changes else (),
                )
            )
            before = message
    return turns


def _ended(
    attempts: Sequence[Attempt], before: StoredMessage | None, message: StoredMessage
) -> tuple[Attempt, ...]:
    first = before.attempt if before else 1
    return tuple(a for a in attempts if first <= a.attempt < message.attempt)


def draft_turn(seq: int, attempt: int, parts: Sequence[object]) -> Turn:
    """The message in the making, from its parts so far."""
    message = StoredMessage(seq, "response", attempt, "", datetime.min)
    body = {"parts": list(parts)}
    shown_parts = _parts(message, body, _Known(), set())
    return Turn(seq, "response", attempt, None, tuple(shown_parts))


def prompt_turn(prompt_json: str) -> Turn:
    """What a run was asked that has no message yet."""
    parts = tuple(_content("user", parsed(prompt_json), 0))
    return Turn(0, "request", 0, None, parts)


def answer_from(envelope: str) -> Answer:
    """A recorded result; the envelope is that of ``durably.agents.recorded``."""
    match parsed(envelope):
        case {"return": {"return_value": value}}:
            return _answer("success", value)
        case {"child": {"output": output}}:
            return _answer("success", output)
        case {"child": {"state": state, **rest}}:
            return _answer("failed", f"{state}: {rest.get('error', '')}".rstrip(": "))
        case {"retry": said}:
            return _answer("retried", said)
        case {"failed": said} | {"timeout": said} | {"unknown": said}:
            return _answer("failed", said)
        case value:
            return _answer("success", value)


def _parts(
    message: StoredMessage, body: dict[str, Any], about: _Known, shown_calls: set[_Ref]
) -> Iterator[Part]:
    if not is_list(body.get("parts")):
        yield Raw("damaged message", shown(parsed(message.body)), 0)
        return
    calls = 0
    for index, part in enumerate(items_of(body["parts"])):
        fields = fields_of(part)
        kind = fields.get("part_kind")
        if kind == "tool-call":
            yield _call(fields, f"{message.seq}.{calls}", message.seq, index, about)
            calls += 1
        elif kind == "builtin-tool-call":
            yield _call(fields, "", message.seq, index, about)
        elif _is_answer(fields):
            if (message.seq, _call_ref(fields)) not in shown_calls:
                yield Result(_name(fields), _answer_in(fields, message.seq, index))
        else:
            yield from _other(kind, part, fields, index)


def _other(kind: object, part: object, fields: dict[str, Any], index: int) -> Iterator[Part]:
    content = fields.get("content")
    match kind:
        case "text":
            yield from _content("assistant", content, index)
        case "user-prompt":
            yield from _content("user", content, index)
        case "system-prompt":
            yield from _content("system", content, index)
        case "thinking":
            if content:
                yield from _content("thinking", content, index)
        case "retry-prompt" | "retry-feedback":
            yield _said("retry", text_of(content), index)
        case "file" if is_file(content):
            yield file_from(fields_of(content))
        case _:
            name = kind if isinstance(kind, str) else "unknown part"
            yield Raw(one_line(visible(name), 60), shown(part), index)


def _call(fields: dict[str, Any], call_id: str, seq: int, index: int, about: _Known) -> Call:
    args = fields.get("args")
    effect = about.effects.get(call_id)
    answer = about.answers.get((seq, _call_ref(fields)))
    if answer is None and effect is not None and effect.result is not None:
        answer = answer_from(effect.result)
    inside = tuple(
        Inside(step, shown(parsed(step.args)), answer_from(step.result) if step.result else None)
        for step in about.inside.get(call_id, ())
    )
    value: Any = parsed(args) if isinstance(args, str) else args
    return Call(
        call_id,
        _name(fields),
        shown({} if value is None else value),
        effect,
        answer,
        inside,
        index,
        running=(seq, _call_ref(fields)) in about.running,
    )


def _content(who: str, content: object, index: int) -> Iterator[Said | File]:
    """Text, or a list of texts and files."""
    if not is_list(content):
        yield _said(who, text_of(content), index)
        return
    for item in items_of(content):
        fields = fields_of(item)
        if is_file(item):
            yield file_from(fields)
        elif fields.get("kind") == "text-content":
            yield _said(who, text_of(fields.get("content")), index)
        elif fields.get("kind") != "cache-point":
            yield _said(who, text_of(item), index)


def _said(who: str, text: str, index: int) -> Said:
    limit = markdown.LIMIT
    html = markdown.to_html(text) if who in ("assistant", "thinking") else None
    return Said(who, visible(text[:limit]), html, len(text) > limit, index)


def _answers(bodies: Sequence[_Read]) -> dict[_Ref, Answer]:
    """What was answered to the calls of a response, by its position and the call's own id.

    A message answers the response before it; an id means nothing beyond that.
    """
    found: dict[_Ref, Answer] = {}
    response: int | None = None
    for message, body in bodies:
        if message.kind == "response":
            response = message.seq
        if response is None:
            continue
        for index, part in enumerate(items_of(body.get("parts"))):
            fields = fields_of(part)
            if _is_answer(fields):
                answer = _answer_in(fields, message.seq, index)
                found.setdefault((response, _call_ref(fields)), answer)
    return found


def _calls_in(bodies: Sequence[_Read]) -> set[_Ref]:
    """Which answers stand with their calls: by the position of the answer's message."""
    found: set[_Ref] = set()
    calls: set[str] = set()
    for message, body in bodies:
        parts = [fields_of(part) for part in items_of(body.get("parts"))]
        if message.kind == "response":
            kinds = ("tool-call", "builtin-tool-call")
            calls = {_call_ref(part) for part in parts if part.get("part_kind") in kinds}
        for part in parts:
            if _is_answer(part) and _call_ref(part) in calls:
                found.add((message.seq, _call_ref(part)))
    return found


def _is_answer(fields: dict[str, Any]) -> bool:
    kind = fields.get("part_kind")
    if kind in ("tool-return", "builtin-tool-return"):
        return True
    return kind == "retry-prompt" and fields.get("tool_name") is not None


def _answer_in(fields: dict[str, Any], seq: int, index: int) -> Answer:
    retry = fields.get("part_kind") == "retry-prompt"
    how = "retried" if retry else text_of(fields.get("outcome")) or "success"
    return _answer(one_line(visible(how), 20), fields.get("content"), seq, index)


def _answer(how: str, value: object, message: int | None = None, part: int = 0) -> Answer:
    items = items_of(value) or [value]
    files = tuple(file_from(fields_of(item)) for item in items if is_file(item))
    if files:
        left = [item for item in items if not is_file(item)]
        labels = ", ".join(file.label for file in files)
        return Answer(how, shown(left or labels), files, message, part)
    return Answer(how, shown(value), files, message, part)


def _call_ref(fields: dict[str, Any]) -> str:
    return text_of(fields.get("tool_call_id"))


def _name(fields: dict[str, Any]) -> str:
    return one_line(visible(text_of(fields.get("tool_name"))), 100) or "unnamed"


def _steps_by_call(effects: Sequence[Effect]) -> dict[str, list[Effect]]:
    found: dict[str, list[Effect]] = {}
    for effect in effects:
        if effect.position.step:
            outer = effect.position._replace(step="").call_id
            found.setdefault(outer, []).append(effect)
    for steps in found.values():
        # The result of a step that is safe to repeat is recorded with the next write.
        steps.sort(key=lambda e: (e.state is EffectState.AWAITING, e.started_at))
    return found


def _tokens(body: dict[str, Any]) -> str:
    usage = fields_of(body.get("usage"))
    given, made = usage.get("input_tokens"), usage.get("output_tokens")
    if not isinstance(given, int) or not isinstance(made, int) or not (given or made):
        return ""
    return f"{given:,} tokens in, {made:,} out"
