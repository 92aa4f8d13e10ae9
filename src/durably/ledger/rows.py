"""Rows to records: the one place that knows which column becomes what.

A row that is damaged becomes a record that says so; `columns` knows how a value is read.
"""

from __future__ import annotations

from typing import Any, cast

from durably.budgets import Budget, SharedBudget, Spent, UsedUp
from durably.ledger.columns import (
    Columns,
    decoded,
    moment,
    moment_in,
    moment_or_none,
    timestamp,
)
from durably.ledger.operations import Row
from durably.lifecycle import AttemptOutcome, EffectState, RunState
from durably.records import (
    Action,
    Attempt,
    CallPosition,
    Decision,
    Effect,
    Event,
    HeldRun,
    InboxItem,
    Notice,
    QueueSetting,
    RunInput,
    RunRecord,
    Signal,
    StoredMessage,
    WorkerRecord,
)

__all__ = ["decoded", "moment", "moment_in", "moment_or_none", "timestamp"]

NOTHING: dict[str, Any] = {"requests": 0}
"""Stands for limits that cannot be read: nothing is spent until somebody sets them."""


def waiting_from(row: Row) -> dict[str, Any] | None:
    """What a row of durably_runs waits for; None if it does not."""
    return _waiting(Columns("durably_runs", row))


def _waiting(columns: Columns) -> dict[str, Any] | None:
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
        waiting_on=_waiting(columns),
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


def effect_from(row: Row) -> Effect:
    """A row of durably_effects."""
    position = CallPosition(row["response"], row["call"], row["step"])
    columns = Columns("durably_effects", row, f"call {position.call_id}")
    return Effect(
        run_id=row["run_id"],
        position=position,
        tool_name=row["tool_name"],
        tool_call_id=row["tool_call_id"],
        args=row["args"],
        policy=row["policy"],
        on_doubt=row["on_doubt"],
        state=columns.choice("state", EffectState, EffectState.IN_DOUBT),
        asked=bool(row["asked"]),
        attempt=row["attempt"],
        idempotency_key=row["idempotency_key"],
        result=row["result"],
        error=row["error"],
        resolved_by=row["resolved_by"],
        started_at=columns.moment("started_at"),
        finished_at=columns.moment_or_none("finished_at"),
        ask=row["ask"],
        request=columns.object_or_none("request") or {},
        approved=bool(row["approved"]),
        asked_at=columns.moment_or_none("asked_at"),
        expires_at=columns.moment_or_none("expires_at"),
        on_expiry=row["on_expiry"],
        awaits=row["awaits"],
        escalate_queue=row["escalate_queue"],
        damage=columns.damage,  # Last, as above.
    )


def inbox_item_from(row: Row, effect: Effect | None, path: list[str]) -> InboxItem:
    """A row of durably_runs, joined with the effect that it waits for, or with since when.

    Args:
        path: the keys of the runs above it, and its own.
    """
    columns = Columns("durably_runs", row)
    return InboxItem(
        run_key=row["run_key"],
        agent=row["agent"],
        queue=row["queue"],
        tags=columns.texts("tags"),
        effect=effect,
        waiting=_waiting(columns) or {},
        since=effect.asked_at or effect.started_at if effect else moment(row["since"]),
        path=path,
        worker=row["called_by"] if effect else None,
        run_id=row["run_id"],
        damage=(*columns.damage, *(effect.damage if effect else ())),
    )


def shared_budget_from(row: Row) -> SharedBudget:
    """A row of durably_budgets."""
    columns = Columns("durably_budgets", row, f"{row['scope']} {row['name']!r}")
    nothing = Budget.from_json(NOTHING)
    return SharedBudget(
        scope=row["scope"],
        name=row["name"],
        limits=columns.read("limits", Budget.from_json, nothing),
        spent=Spent(
            row["spent_requests"],
            row["spent_tokens"],
            row["spent_tool_calls"],
            row["spent_nanousd"],
        ),
        changed_at=columns.moment("changed_at"),
        damage=columns.damage,
    )


def notice_from(row: Row) -> Notice:
    """A row of durably_notices. Where it cannot be read who was told, everybody is told again."""
    about_run = row["response"] is None
    columns = Columns("durably_notices", row)
    return Notice(
        id=row["id"],
        run_id=row["run_id"],
        position=None if about_run else CallPosition(row["response"], row["call"], row["step"]),
        kind=row["kind"],
        attempt=row["attempt"],
        reason=row["reason"],
        made_at=columns.moment("made_at"),
        tries=row["tries"],
        taken_by=tuple(columns.texts("taken_by")),
    )


def decision_from(row: Row) -> Decision:
    """A row of durably_decisions."""
    about_run = row["response"] is None
    return Decision(
        run_id=row["run_id"],
        position=None if about_run else CallPosition(row["response"], row["call"], row["step"]),
        decision=row["decision"],
        by=row["by"],
        note=row["note"],
        args_before=row["args_before"],
        args_after=row["args_after"],
        at=moment(row["at"]),
    )


def action_from(row: Row) -> Action:
    """A row of durably_actions; in the place of data that cannot be read stands why."""
    columns = Columns("durably_actions", row, f"action {row['id']}")
    at, data = columns.moment("at"), columns.object("data")
    return Action(
        id=row["id"],
        at=at,
        by=row["by"],
        action=row["action"],
        run_key=row["run_key"],
        subject=row["subject"],
        data=_with_damage(data, columns),
    )


def signal_from(row: Row) -> Signal:
    """A row of durably_signals."""
    taken = row["taken_step"] is not None
    place = (row["taken_response"], row["taken_call"], row["taken_step"])
    columns = Columns("durably_signals", row, f"signal {row['name']!r}")
    return Signal(
        id=row["id"],
        run_id=row["run_id"],
        name=row["name"],
        payload=columns.value("payload"),
        by=row["by"],
        signal_id=row["signal_id"],
        sent_at=columns.moment("sent_at"),
        taken_by=CallPosition(*place) if taken else None,
        damage=columns.damage,
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
        data=_with_damage(data, columns),
        at=at,
    )


def event_data(row: Row) -> dict[str, Any]:
    """What a row of durably_events says; nothing, if that cannot be read."""
    return Columns("durably_events", row).object("data")


def usage_from(row: Row) -> dict[str, Any]:
    """The usage in a row of durably_runs; nothing, if it cannot be read."""
    return Columns("durably_runs", row).object("usage")


def _with_damage(data: dict[str, Any], columns: Columns) -> dict[str, Any]:
    return data | {"damage": list(columns.damage)} if columns.damage else data


def worker_from(row: Row) -> WorkerRecord:
    """A row of durably_workers with its load. The next heartbeat writes its queues anew."""
    columns = Columns("durably_workers", row)
    queues = columns.object("queues")
    return WorkerRecord(
        id=row["id"],
        name=row["name"],
        pid=row["pid"],
        queues={name: n for name, n in queues.items() if isinstance(n, int)},
        started_at=columns.moment("started_at"),
        heartbeat_at=columns.moment("heartbeat_at"),
        expires_at=columns.moment("expires_at"),
        executing=row["executing"],
        alive=bool(row["alive"]),
    )


def queue_setting_from(row: Row) -> QueueSetting:
    """A row of durably_queues."""
    return QueueSetting(row["queue"], bool(row["paused"]), row["runs_at_once"])


def held_from(row: Row) -> HeldRun:
    """A run that a worker holds."""
    return HeldRun(row["id"], row["attempt"], row["cancel_requested_at"] is not None)
