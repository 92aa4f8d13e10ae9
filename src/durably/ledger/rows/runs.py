"""Rows of runs, and of what is theirs: inputs, messages, attempts, events."""

from __future__ import annotations

from typing import Any, cast

from durably.budgets import Budget, UsedUp
from durably.ledger.columns import Columns, moment
from durably.ledger.operations import Row
from durably.lifecycle import AttemptOutcome, RunState
from durably.records import Attempt, Event, RunInput, RunRecord, StoredMessage

NOTHING: dict[str, Any] = {"requests": 0}
"""Stands for limits that cannot be read: nothing is spent until somebody sets them."""


def waiting_from(row: Row) -> dict[str, Any] | None:
    """What a row of durably_runs waits for; None if it does not."""
    return waiting_in(Columns("durably_runs", row))


def waiting_in(columns: Columns) -> dict[str, Any] | None:
    """The same, where its columns are being read already."""
    kind = columns.row["waiting_kind"]
    if kind is None:
        return None
    before = columns.damage
    on = columns.object_or_none("waiting_on") or {}
    if columns.damage == before and not _tells(kind, on):
        columns.note("waiting_on", f"nothing that a run can wait for which waits for {kind!r}")
    said = {"kind": kind}
    if columns.damage != before:
        return said
    return said | on | said  # Its kind comes first, as people read it, and is the column's.


def _tells(kind: str, on: dict[str, Any]) -> bool:
    """Whether it says what a run of this kind waits for, in the shape that readers rely on."""
    match kind:
        case "budget":
            return UsedUp.read(on) is not None
        case "effects" | "waits":
            effects, waits = on.get("effects", []), on.get("waits", [])
            return (
                _all(effects, str)
                and _all(waits, dict)
                and all(
                    isinstance(wait.get(name), str) for wait in waits for name in ("for", "call_id")
                )
            )
        case "steered":
            return isinstance(on.get("steers"), str)
        case "interrupt":
            return isinstance(on.get("after"), str) and isinstance(on.get("interrupts"), str)
        case "thread" | "steer":
            return isinstance(on.get("after"), str)
        case _:
            return True


def _all(items: object, kind: type) -> bool:
    return isinstance(items, list) and all(isinstance(i, kind) for i in cast("list[Any]", items))


def tags_from(row: Row) -> list[str]:
    """The tags in a row of durably_runs, or one joined with it."""
    return Columns("durably_runs", row).texts("tags")


def run_from(row: Row, asked: RunInput | None = None) -> RunRecord:
    """A row of durably_runs, with what the run was asked if that is known."""
    columns = Columns("durably_runs", row)
    return RunRecord(
        id=row["id"],
        key=row["key"],
        agent=row["agent"],
        queue=row["queue"],
        state=columns.choice("state", RunState, RunState.DISCARDED),
        priority=row["priority"],
        attempt=row["attempt"],
        failures=row["failures"],
        crashes=row["crashes"],
        max_attempts=row["max_attempts"],
        tags=columns.texts("tags"),
        meta=columns.object("meta"),
        usage=columns.object("usage"),
        waiting_on=waiting_in(columns),
        output=row["output"],
        error=row["error"],
        worker_id=row["worker_id"],
        cancel_requested_at=columns.moment_or_none("cancel_requested_at"),
        scheduled_at=columns.moment("scheduled_at"),
        inserted_at=columns.moment("inserted_at"),
        attempted_at=columns.moment_or_none("attempted_at"),
        finished_at=columns.moment_or_none("finished_at"),
        thread=row["thread"],
        parent_id=row["parent_id"],
        tells_end=bool(row["tells_end"]),
        budget=None if row["budget"] is None else columns.read("budget", _limits, NOTHING),
        cost_nanousd=row["cost_nanousd"],
        stream=None if row["stream"] is None else bool(row["stream"]),
        model=row["model"],
        tokens=row["tokens"],
        own_nanousd=row["own_nanousd"],
        waited_ms=row["waited_ms"],
        executed_ms=row["executed_ms"],
        input=asked,
        damage=columns.damage,  # Last: by now every column was read.
    )


def _limits(data: dict[str, Any]) -> dict[str, Any]:
    Budget.from_json(data)
    return data


def input_from(row: Row) -> RunInput:
    """A row of durably_inputs."""
    columns = Columns("durably_inputs", row)
    return RunInput(
        prompt=columns.json_text("prompt"), args=columns.object("args"), damage=columns.damage
    )


def message_from(row: Row) -> StoredMessage:
    """A row of durably_messages."""
    return StoredMessage(
        seq=row["seq"],
        kind=row["kind"],
        attempt=row["attempt"],
        body=row["body"],
        inserted_at=moment(row["inserted_at"]),
    )


def attempt_from(row: Row) -> Attempt:
    """A row of durably_attempts. One that ended nobody knows how counts as lost."""
    columns = Columns("durably_attempts", row, f"attempt {row['attempt']}")
    return Attempt(
        run_id=row["run_id"],
        attempt=row["attempt"],
        worker_id=row["worker_id"],
        started_at=columns.moment("started_at"),
        ended_at=columns.moment_or_none("ended_at"),
        outcome=None
        if row["outcome"] is None
        else columns.choice("outcome", AttemptOutcome, AttemptOutcome.LOST),
        error=row["error"],
        traceback=row["traceback"],
        fingerprint=row["fingerprint"],
        damage=columns.damage,
    )


def event_from(row: Row) -> Event:
    """A row of durably_events joined with its run's key; in the place of data that cannot be read
    stands why."""
    columns = Columns("durably_events", row, f"event {row['id']}")
    at, data = columns.moment("at"), columns.object("data")
    return Event(
        id=row["id"],
        run_key=row["run_key"],
        kind=row["kind"],
        attempt=row["attempt"],
        data=columns.with_damage(data),
        at=at,
    )


def event_data(row: Row) -> dict[str, Any]:
    """What a row of durably_events says; nothing, if that cannot be read."""
    return Columns("durably_events", row).object("data")


def usage_from(row: Row) -> dict[str, Any]:
    """The usage in a row of durably_runs; nothing, if it cannot be read."""
    return Columns("durably_runs", row).object("usage")
