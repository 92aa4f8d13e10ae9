"""What somebody looks for among the runs: read from an address, and written into one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from durably.lifecycle import RunState

TEXTS = ("key", "text", "agent", "queue", "tag", "thread")
TIMES = ("since", "until")
NAMES = ("state", *TEXTS, *TIMES)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for.

    Attributes:
        given: what was typed, by its name.
        filters: the same, as `Durably.search` takes it.
        wrong: what cannot be looked for, by its name.
    """

    given: dict[str, str] = field(default_factory=dict[str, str])
    filters: dict[str, Any] = field(default_factory=dict[str, Any])
    wrong: dict[str, str] = field(default_factory=dict[str, str])

    def query(self, **more: object) -> str:
        """The query of an address with all of it, and more."""
        return urlencode({**self.given, **more}, errors="replace")


def wanted(given: Iterable[tuple[str, str]]) -> Wanted:
    """Read what is looked for; what is empty counts for nothing."""
    typed = {name: text.strip() for name, text in given if name in NAMES and text.strip()}
    filters: dict[str, Any] = {name: typed[name] for name in TEXTS if name in typed}
    wrong: dict[str, str] = {}
    if "state" in typed:
        filters["state"] = typed["state"]
        if typed["state"] not in set(RunState):
            wrong["state"] = f"There is no state {typed['state'][:40]!r}."
    for name in TIMES:
        if name in typed:
            filters[name] = moment = _moment(typed[name])
            if moment is None:
                wrong[name] = "Write a time such as 2026-11-28T09:30."
    return Wanted(typed, filters, wrong)


def _moment(text: str) -> datetime | None:
    """A time; in UTC where it says nothing else."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
