"""What is moved of a ledger: its tables, and how a value reads the same in both databases.

Owns the canonical form of a row; the statements are in ``sql/transfer.sql``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from durably.ledger.columns import timestamp

type Values = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table, or what is looked at as if it were one.

    Attributes:
        key: the columns of its key, which come first.
        tags: which column holds tags, the one kind of JSON that is not kept as it was written.
    """

    name: str
    key: tuple[str, ...]
    tags: int | None = None

    def canonical(self, row: Values) -> Values:
        """A row as PostgreSQL can hold it, however it was read."""
        values = tuple([_READ[type(value)](value) for value in row])
        if self.tags is None:
            return values
        return (*values[: self.tags], _tags(values[self.tags]), *values[self.tags + 1 :])


PER_RUN = (
    Table("runs", key=("id",), tags=1),
    Table("inputs", key=("run_id",)),
    Table("messages", key=("run_id", "seq")),
    Table("effects", key=("run_id", "response", "call", "step")),
    Table("decisions", key=("run_id", "id")),
    Table("signals", key=("run_id", "id")),
    Table("notices", key=("run_id", "id")),
    Table("attempts", key=("run_id", "attempt")),
    Table("events", key=("run_id", "id")),
)
"""Runs, and whatever belongs to one; in an order in which they can be written."""

SHARED = (
    Table("queues", key=("queue",)),
    Table("budgets", key=("scope", "name")),
    Table("actions", key=("id",)),
)
"""What was decided for queues, what runs share, and who did what; no run's own."""

JOBS = Table("jobs", key=("run_id",))
"""Oban's jobs: on the one side those that there are to be, on the other those that there are."""

COMPARED = (*PER_RUN, *SHARED, JOBS)


def _same(value: Any) -> Any:
    return value


def _text(value: str) -> str:
    """Text as everything that is written to PostgreSQL: it has no NUL there."""
    return value.replace("\0", "\ufffd") if "\0" in value else value


_READ: dict[type, Callable[[Any], Any]] = {
    str: _text,
    int: _same,
    type(None): _same,
    bool: int,
    datetime: timestamp,
}
"""How a value of each type is written in a canonical row; there are no others."""


def _tags(text: str) -> str:
    tags: Any = json.loads(text)
    if isinstance(tags, list):
        tags = [_whole(tag) for tag in cast("list[object]", tags)]
    return json.dumps(tags)


def _whole(tag: object) -> object:
    """A tag without NULs and halves of characters, neither of which jsonb takes."""
    if not isinstance(tag, str):
        return tag
    return tag.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
