"""The audit trail: who did what, to what, when.

Owns that an action is written in the transaction of what it did; what was done is the others'.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.ledger.operations import Operation, execute, fetch
from durably.ledger.rows import action_from
from durably.records import Action

NEWEST = 2**62
"""An id that no action has."""


@dataclass(frozen=True, slots=True)
class NewAction:
    """An action about to be recorded; see `durably.records.Action`."""

    action: str
    by: str
    run_key: str | None = None
    subject: str = ""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])


def recorded[T](action: NewAction, operation: Callable[[], Operation[T]]) -> Operation[T]:
    """Do what ``operation`` does, and write down who did it; both, or neither."""
    result = yield from operation()
    yield from record(action)
    return result


def record(action: NewAction) -> Operation[None]:
    """Write an action down."""
    data = {name: value for name, value in action.data.items() if value not in (None, "")}
    yield from execute(
        "insert_action",
        by=action.by,
        action=action.action,
        run_key=action.run_key,
        subject=action.subject,
        data=json.dumps(data),
    )


def list_actions(run_key: str | None, before: int | None, limit: int) -> Operation[list[Action]]:
    """Actions, newest first; a read."""
    before = NEWEST if before is None else before
    if run_key is None:
        rows = yield from fetch("list_actions", before=before, limit=limit)
    else:
        rows = yield from fetch("list_actions_on_run", run_key=run_key, before=before, limit=limit)
    return [action_from(row) for row in rows]


def prune(older_than_seconds: float, upto: int, limit: int) -> Operation[int]:
    """Delete actions that are older, unless they are about a run that is still there.

    Args:
        upto: none with a higher id, such as what is written down about this very pruning.
    """
    older: dict[str, object] = {"older_than_seconds": older_than_seconds, "upto": upto}
    return (yield from execute("prune_actions", limit=limit, **older))
