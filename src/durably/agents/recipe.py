"""Reads the message JSON of the recipe that durably started from: objects with ``__type__``.

Owns that format and its refusals; what becomes of the messages is left to history.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NoReturn, cast, get_args

from pydantic_ai.messages import FinishReason

from durably.agents.exact import json_name
from durably.errors import HistoryError

_TYPE = "__type__"
_Json = dict[str, object]

_FINISH_REASONS = frozenset(cast(tuple[str, ...], get_args(FinishReason)))
_FINISH_SYNONYMS = {"tool_calls": "tool_call"}
_CALL_KINDS = frozenset({"function", "output", "external", "unapproved"})


def is_recipe(items: Sequence[object]) -> bool:
    """Whether the list is in the recipe's format; a mixture of formats is refused."""
    tagged = [isinstance(item, dict) and _TYPE in item for item in items]
    if any(tagged) and not all(tagged):
        other = tagged.index(False)
        raise HistoryError(
            f"this message has no {_TYPE!r} while [{tagged.index(True)}] has one: "
            "a history is in one format, pydantic-ai's or the recipe's.",
            f"[{other}]",
        )
    return any(tagged)


def translate_recipe(items: Sequence[object]) -> list[_Json]:
    """The recipe's messages as pydantic-ai's own JSON, index by index."""
    return [_message(_Object(item, f"[{index}]")) for index, item in enumerate(items)]


class _Object:
    """One JSON object: fields are taken by name, and what nobody took is refused."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise HistoryError(f"should be an object, not {json_name(value)}.", path)
        self.path = path
        self._left = dict(cast(_Json, value))

    def refuse(self, message: str, name: str = "") -> NoReturn:
        raise HistoryError(message, f"{self.path}.{name}" if name else self.path)

    def take(self, name: str) -> object:
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            self.refuse(f"should be a string or null, not {json_name(value)}.", name)
        return value

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            self.refuse("the field is missing or null.", name)
        return value

    def count(self, name: str) -> int:
        value = self.take(name)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.refuse("should be a count: a number from 0 without a fraction.", name)
        return value

    def timestamp(self, otherwise: str | None = None) -> str | None:
        value = self.text("timestamp")
        if value is None:
            return otherwise
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.refuse(f"{value!r} is not an ISO 8601 timestamp.", "timestamp")
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()

    def value(self, name: str) -> object:
        if name not in self._left:
            self.refuse("the field is missing.", name)
        return self.take(name)

    def prompt(self) -> str:
        """Text; a list, or an object of errors, as the JSON that the recipe showed to the model."""
        value = self.value("content")
        if not isinstance(value, str | list | dict):
            self.refuse(f"should be a string or a list, not {json_name(value)}.", "content")
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def done(self) -> None:
        for name, value in self._left.items():
            if value is not None:
                self.refuse(f"unknown field {name!r} of the recipe's format.", name)


def _message(message: _Object) -> _Json:
    kind = message.take(_TYPE)
    if kind not in ("request", "response"):
        message.refuse(f"unknown message {_TYPE} {kind!r}; known: request, response.")
    timestamp = message.timestamp()
    parts = message.take("parts")
    if not isinstance(parts, list):
        message.refuse(f"should be a list, not {json_name(parts)}.", "parts")
    table = _REQUEST_PARTS if kind == "request" else _RESPONSE_PARTS
    translated = [
        _part(_Object(part, f"{message.path}.parts[{number}]"), table, timestamp)
        for number, part in enumerate(cast(list[object], parts))
    ]
    result = {"kind": kind, "parts": translated, "timestamp": timestamp}
    result |= _request_fields(message) if kind == "request" else _response_fields(message)
    message.done()
    # A response always has a timestamp: without one, pydantic-ai fills in the time of reading.
    return {name: value for name, value in result.items() if value is not None}


def _request_fields(message: _Object) -> _Json:
    return {name: message.text(name) for name in ("instructions", "run_id", "conversation_id")}


def _response_fields(message: _Object) -> _Json:
    fields: _Json = {"model_name": message.text("model_name"), "usage": _usage(message)}
    reason = message.text("finish_reason")
    if reason is None or reason == "nil":  # how the recipe writes a missing atom
        return fields
    known = _FINISH_SYNONYMS.get(reason, reason)
    if known in _FINISH_REASONS:
        return fields | {"finish_reason": known}
    # Kept where pydantic-ai keeps a provider's own word for it.
    return fields | {"provider_details": {"finish_reason": reason}}


def _usage(message: _Object) -> _Json | None:
    value = message.take("usage")
    if value is None:
        return None
    usage = _Object(value, f"{message.path}.usage")
    counts = {name: usage.count(name) for name in ("input_tokens", "output_tokens")}
    given = usage.take("details")
    usage.done()
    details = _Object({} if given is None else given, f"{usage.path}.details")
    names = list(cast(Mapping[str, object], given or {}))
    return {**counts, "details": {name: details.count(name) for name in names}}


_Translate = Callable[[_Object, str | None], _Json]


def _part(part: _Object, table: dict[str, _Translate], timestamp: str | None) -> _Json:
    kind = part.take(_TYPE)
    if not isinstance(kind, str) or kind not in table:
        part.refuse(f"unknown part {_TYPE} {kind!r}; known here: {', '.join(table)}.")
    translated = table[kind](part, timestamp)
    part.done()
    # A null content is a tool that returned nothing: it has to stay a field.
    return {name: v for name, v in translated.items() if v is not None or name == "content"}


def _system(part: _Object, timestamp: str | None) -> _Json:
    return {
        "part_kind": "system-prompt",
        "content": part.prompt(),
        "timestamp": part.timestamp(timestamp),
        "dynamic_ref": part.text("dynamic_ref"),
    }


def _user(part: _Object, timestamp: str | None) -> _Json:
    return {
        "part_kind": "user-prompt",
        "content": part.prompt(),
        "timestamp": part.timestamp(timestamp),
    }


def _tool_return(part: _Object, timestamp: str | None) -> _Json:
    name = part.required_text("tool_name")
    return {
        "part_kind": "tool-return",
        "tool_name": name,
        "tool_call_id": part.text("tool_call_id") or name,
        "timestamp": part.timestamp(timestamp),
        "content": part.value("content"),
    }


def _retry(part: _Object, timestamp: str | None) -> _Json:
    name = part.text("tool_name")
    # The oldest supported pydantic-ai has this part; newer ones read it as its successors.
    return {
        "part_kind": "retry-prompt",
        "content": part.prompt(),
        "tool_name": name,
        "tool_call_id": part.text("tool_call_id") or name,
        "timestamp": part.timestamp(timestamp),
    }


def _text(part: _Object, _: str | None) -> _Json:
    return {"part_kind": "text", "content": part.required_text("content")}


def _thinking(part: _Object, _: str | None) -> _Json:
    return {
        "part_kind": "thinking",
        "content": part.required_text("content"),
        "signature": part.text("signature"),
    }


def _tool_call(part: _Object, _: str | None) -> _Json:
    name = part.required_text("tool_name")
    args = part.take("args")
    if args is not None and not isinstance(args, str | dict):
        part.refuse(f"should be an object, a JSON string or null, not {json_name(args)}.", "args")
    kind = part.text("kind")
    if kind is not None and kind not in _CALL_KINDS:
        part.refuse(f"{kind!r} is none of {', '.join(sorted(_CALL_KINDS))}.", "kind")
    # The kind has no place in a message: pydantic-ai finds it from the tool's name in each run.
    return {
        "part_kind": "tool-call",
        "tool_name": name,
        "args": cast(object, args),
        # The recipe sends the name where the provider gave no id; call and return still meet.
        "tool_call_id": part.text("tool_call_id") or name,
    }


_REQUEST_PARTS: dict[str, _Translate] = {
    "system": _system,
    "user": _user,
    "tool_return": _tool_return,
    "retry": _retry,
}
_RESPONSE_PARTS: dict[str, _Translate] = {
    "text": _text,
    "thinking": _thinking,
    "tool_call": _tool_call,
}
