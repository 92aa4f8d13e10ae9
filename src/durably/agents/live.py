"""A message in the making as JSON and back: pydantic-ai's own stream events, batched and bounded.

Owns what a delta holds; public as ``durably.live``. When deltas are written is the feed's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, cast

import pydantic
from pydantic_ai.messages import AgentStreamEvent, PartDeltaEvent, ThinkingPartDelta

from durably.agents.exact import NOT_JSON
from durably.agents.history import BY_ALIAS, OWN_ROWS

PIECE_CHARS = 65_536
"""How long a piece may be as JSON; a longer one is shortened, and says so: ``truncated``."""

SHORT_CHARS = 4_096
"""How much of a text is left in a piece that was shortened."""

_GROWS = {"text": "content_delta", "thinking": "content_delta", "tool_call": "args_delta"}
"""What grows in a delta of each kind."""


def event_to_json(event: AgentStreamEvent) -> dict[str, Any]:
    """One event as a JSON object, shortened if it is too long.

    Raises:
        ValueError: it holds something that is not JSON, or is too long and cannot be shortened.
    """
    try:
        text = _events().dump_json(_without_callables(event), by_alias=BY_ALIAS)
    except NOT_JSON as error:
        raise ValueError(f"it holds something that is not JSON: {error}") from error
    found = cast("dict[str, Any]", json.loads(text))
    if len(text) <= PIECE_CHARS or found["event_kind"] == "part_delta":
        return found
    return _shortened(found, len(text))


def events_to_json(events: Iterable[AgentStreamEvent]) -> list[dict[str, Any]]:
    """Events as JSON objects; those that follow each other in one part as one.

    Raises:
        ValueError: one holds something that is not JSON, or is too long and cannot be shortened.
    """
    found: list[dict[str, Any]] = []
    for event in map(event_to_json, events):
        merged = merge(found[-1], event) if found else None
        if merged is None:
            found.append(event)
        else:
            found[-1] = merged
    return found


def events_from_json(events: Sequence[object]) -> list[AgentStreamEvent]:
    """The events in a delta, ``event.data["events"]``, as pydantic-ai's own.

    Those that the installed version of pydantic-ai does not know are left out.
    """
    found: list[AgentStreamEvent] = []
    for event in events:
        try:
            found.append(_events().validate_json(json.dumps(event), context=OWN_ROWS))
        except pydantic.ValidationError:
            continue  # Written by another version: the message itself is read with more care.
    return found


def merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any] | None:
    """Two events as one, if both make the same part grow and say nothing else; else None."""
    if not first["event_kind"] == second["event_kind"] == "part_delta":
        return None
    if first["index"] != second["index"]:
        return None
    before, after = first["delta"], second["delta"]
    grows = _GROWS.get(before["part_delta_kind"], "")
    if not isinstance(before.get(grows), str) or not isinstance(after.get(grows), str):
        return None
    rest = {name: value for name, value in after.items() if name != grows}
    if rest != {name: value for name, value in before.items() if name != grows}:
        return None
    told = {name for name, value in rest.items() if value is not None}
    if not told <= {"part_delta_kind", "tool_call_id", "provider_name"}:
        return None
    return {**first, "delta": {**before, grows: before[grows] + after[grows]}}


def length_of(event: dict[str, Any]) -> int:
    """About how many characters an event takes as JSON."""
    if event["event_kind"] == "part_delta":
        delta = event["delta"]
        grown = delta.get(_GROWS.get(delta["part_delta_kind"], ""))
        if isinstance(grown, str):
            return 100 + len(grown)
    return len(json.dumps(event))


@cache
def _events() -> pydantic.TypeAdapter[AgentStreamEvent]:
    return pydantic.TypeAdapter(AgentStreamEvent)


def _without_callables(event: AgentStreamEvent) -> AgentStreamEvent:
    """A thinking delta may hold a function that updates what a provider said; nobody needs it."""
    if not isinstance(event, PartDeltaEvent) or not isinstance(event.delta, ThinkingPartDelta):
        return event
    if not callable(event.delta.provider_details):
        return event
    return dataclasses.replace(event, delta=dataclasses.replace(event.delta, provider_details=None))


# --- shortening


def _shortened(event: dict[str, Any], length: int) -> dict[str, Any]:
    """An event without most of what makes it long; the message itself is stored as it is."""
    short = {**event, "truncated": length}
    part = event.get("part")
    if isinstance(part, dict):
        short["part"] = _short_part(cast("dict[str, Any]", part))
    if "content" in event:
        short["content"] = None
    if len(json.dumps(short)) > PIECE_CHARS:
        raise ValueError(f"it is too long: {length} characters")
    return short


def _short_part(part: dict[str, Any]) -> dict[str, Any]:
    short = dict(part)
    for field in ("args", "metadata"):
        if field in part:
            short[field] = None
    if part.get("part_kind") == "file":
        short["content"] = {**part["content"], "data": ""}
    elif "content" in part:
        content = part["content"]
        text = content if isinstance(content, str) else json.dumps(content)
        short["content"] = text[:SHORT_CHARS]
    return short
