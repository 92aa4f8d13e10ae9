"""The ledger's records as JSON values, as ``--json`` prints them.

Owns the field names that programs read: the records' own, and JSON texts as what they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from durably.records import Effect, Event, RunRecord, StoredMessage


def plain(value: object) -> Any:
    """Any record as JSON: dataclasses as objects, times as ISO 8601."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(field) for name, field in asdict(value).items()}
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, object]", value).items()
        return {name: plain(field) for name, field in pairs}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[object]", value)]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def parsed(text: str | None) -> Any:
    """What a stored JSON text says; the text itself if it is damaged."""
    if text is None:
        return None
    from durably.ledger.columns import decoded

    try:
        return decoded(text)
    except ValueError:
        return text


def run_json(record: RunRecord) -> dict[str, Any]:
    """A run."""
    return plain(record) | {"output": parsed(record.output)}


def message_json(message: StoredMessage) -> dict[str, Any]:
    """A message of the history, with where it stands and which attempt wrote it."""
    return plain(message) | {"body": parsed(message.body)}


def effect_json(effect: Effect) -> dict[str, Any]:
    """A tool call, with the id that ``durably resolve`` takes."""
    fields = plain(effect)
    del fields["position"]
    texts = {"args": parsed(effect.args), "result": parsed(effect.result)}
    return {"call_id": effect.call_id} | fields | texts


def event_json(event: Event) -> dict[str, Any]:
    """An event."""
    return plain(event)
