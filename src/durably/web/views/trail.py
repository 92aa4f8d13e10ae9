"""The audit trail, as a page lists it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from durably.records import Action

_MASKED = {
    "args": "args",
    "value": "payload",
    "payload": "payload",
    "done": "result",
    "failed": "error",
}
"""What hides what was said with an action, by its name."""


@dataclass(frozen=True, slots=True)
class Row:
    """One action.

    Attributes:
        said: what was said with it, by name.
    """

    at: datetime
    by: str
    action: str
    run_key: str | None
    subject: str
    said: list[tuple[str, Any]]


def trail_of(actions: Iterable[Action], mask: Callable[[str, Any], Any]) -> list[Row]:
    """Actions, with what may not be shown masked."""
    return [_row(action, mask) for action in actions]


def _row(action: Action, mask: Callable[[str, Any], Any]) -> Row:
    said = [
        (name, mask(_MASKED[name], value) if name in _MASKED else value)
        for name, value in action.data.items()
    ]
    return Row(action.at, action.by, action.action, action.run_key, action.subject, said)
