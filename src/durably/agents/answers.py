"""What stored responses say of themselves: model, tokens, price, calls.

Owns reading it from a message's JSON, without making the whole message again: a long run has many.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, cast

from pydantic_ai.messages import ModelResponse
from pydantic_ai.usage import RequestUsage

from durably.agents.pricing import Prices, response_name
from durably.records import Answer, StoredMessage

_COUNTERS = frozenset(
    f.name for f in fields(RequestUsage) if f.name.endswith(("_tokens", "_requests"))
)


def answers_of(messages: Sequence[StoredMessage], prices: Prices) -> list[Answer]:
    """What the responses among these messages say, in order."""
    return [_answer(message, prices) for message in messages if message.kind == "response"]


def _answer(message: StoredMessage, prices: Prices) -> Answer:
    body = _object(_parsed(message.body))
    response = ModelResponse(
        parts=[],
        usage=_usage(_object(body.get("usage"))),
        model_name=_text(body.get("model_name")),
        provider_name=_text(body.get("provider_name")),
        provider_url=_text(body.get("provider_url")),
        # Some prices depend on these.
        provider_details=dict(_object(body.get("provider_details"))) or None,
        timestamp=_time(body.get("timestamp")) or message.inserted_at,
    )
    return Answer(
        seq=message.seq,
        attempt=message.attempt,
        at=message.inserted_at,
        model=response_name(response),
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
        cost_nanousd=prices.price_of(response),
        tools=tuple(_tools(body)),
    )


def _usage(given: Mapping[str, Any]) -> RequestUsage:
    usage = RequestUsage()
    for name, value in given.items():
        if name in _COUNTERS and isinstance(value, int):
            setattr(usage, name, value)
    usage.details = {n: v for n, v in _object(given.get("details")).items() if isinstance(v, int)}
    return usage


def _tools(body: Mapping[str, Any]) -> list[str]:
    given = body.get("parts")
    parts = map(_object, cast("list[object]", given)) if isinstance(given, list) else ()
    return [str(p.get("tool_name")) for p in parts if p.get("part_kind") == "tool-call"]


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None  # A row of another version, or damaged: it says nothing of itself.


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _time(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
