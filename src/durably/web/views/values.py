"""JSON values as a page shows them: indented, cut where they are huge. Pure.

Owns how stored JSON is read without ever failing: what is damaged is shown as the text it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from durably.ledger.columns import decoded
from durably.web.views.text import escaped, one_line, visible

LIMIT = 6000
"""Characters of a value that a page shows; the rest is a link away."""

SUMMARY = 100

_ENCODER = json.JSONEncoder(indent=2, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """A value ready to be shown.

    Attributes:
        text: what is shown of it.
        cut: there is more.
        summary: its beginning on one line.
    """

    text: str
    cut: bool
    summary: str


def parsed(text: str | None) -> Any:
    """What a stored JSON text says; the text itself if it is damaged."""
    if text is None:
        return None
    try:
        return decoded(text)
    except ValueError:
        return text


def shown(value: object, limit: int = LIMIT) -> Shown:
    """Text as it is, anything else as indented JSON; both cut to ``limit`` characters."""
    if isinstance(value, str):
        text = visible(value[: limit + 1])
        return Shown(text[:limit], len(value) > limit, one_line(text, SUMMARY))
    text = _json(value, limit)
    summary = one_line(text, SUMMARY)
    if len(text) <= SUMMARY and "\n" in text:
        text = summary = " ".join(text.split())
    return Shown(text[:limit], len(text) > limit, summary)


def compact(value: object) -> str:
    """A value as JSON on one line in ASCII; for hidden fields and commands."""
    return json.dumps(value, separators=(", ", ": "))


def is_object(value: object) -> bool:
    """True of a JSON object."""
    return isinstance(value, dict)


def is_list(value: object) -> bool:
    """True of a JSON list."""
    return isinstance(value, list)


def fields_of(value: object) -> dict[str, Any]:
    """An object's fields; none of anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def items_of(value: object) -> list[Any]:
    """A list's items; none of anything else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def text_of(value: object) -> str:
    """A string; anything else as JSON, nothing as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else _json(value, LIMIT)


def _json(value: object, limit: int) -> str:
    """Indented JSON, no longer than it takes to know that it has to be cut."""
    pieces: list[str] = []
    length = 0
    try:
        for piece in _ENCODER.iterencode(value):
            pieces.append(piece[: limit + 1])
            length += len(piece)
            if length > limit:
                break
    except RecursionError:
        pieces.append(" … nested too deeply to be shown here")
    return escaped("".join(pieces))
