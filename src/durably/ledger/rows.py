"""Rows to records: the one place that knows how a database's columns become Python values."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from durably.budgets import Budget, SharedBudget, Spent
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
    RunRecord,
    Signal,
    StoredMessage,
    WorkerRecord,
)


def timestamp(at: datetime) -> str:
    """A moment as the ledger writes it: ISO 8601, UTC, microseconds, so that text sorts by time."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(value: object) -> datetime:
    """A time column; SQLite keeps text, Postgres gives a datetime."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return datetime.fromisoformat(str(value))


def moment_or_none(value: object) -> datetime | None:
    """A time column that may be empty."""
    return None if value is None else moment(value)


def decoded(value: object) -> Any:
    """A JSON column; SQLite keeps text, Postgres may give the value."""
    return json.loads(value) if isinstance(value, str) else value


def waiting_from(row: Row) -> dict[str, Any] | None:
    """What a row of durably_runs waits for; None if it does not."""
    kind = row["waiting_kind"]
    return None if kind is None else {"kind": kind, **(decoded(row["waiting_on"]) or {})}


def run_from(row: Row) -> RunRecord:
    """A row of durably_runs."""
    return RunRecord(
        id=row["id"],
        key=row["key"],
        agent=row["agent"],
        queue=row["queue"],
        state=RunState(row["state"]),
        priority=row["priority"],
        attempt=row["attempt"],
        failures=row["failures"],
        crashes=row["crashes"],
        max_attempts=row["max_attempts"],
        tags=decoded(row["tags"]),
        meta=decoded(row["meta"]),
        usage=decoded(row["usage"]),
        waiting_on=waiting_from(row),
        output=row["output"],
        error=row["error"],
        worker_id=row["worker_id"],
        cancel_requested_at=moment_or_none(row["cancel_requested_at"]),
        scheduled_at=moment(row["scheduled_at"]),
        inserted_at=moment(row["inserted_at"]),
        attempted_at=moment_or_none(row["attempted_at"]),
        finished_at=moment_or_none(row["finished_at"]),
        thread=row["thread"],
        parent_id=row["parent_id"],
        tells_end=bool(row["tells_end"]),
        budget=decoded(row["budget"]),
        cost_nanousd=row["cost_nanousd"],
        stream=None if row["stream"] is None else bool(row["stream"]),
        model=row["model"],
        tokens=row["tokens"],
        own_nanousd=row["own_nanousd"],
        waited_ms=row["waited_ms"],
        executed_ms=row["executed_ms"],
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
    return Effect(
        run_id=row["run_id"],
        position=CallPosition(row["response"], row["call"], row["step"]),
        tool_name=row["tool_name"],
        tool_call_id=row["tool_call_id"],
        args=row["args"],
        policy=row["policy"],
        on_doubt=row["on_doubt"],
        state=EffectState(row["state"]),
        asked=bool(row["asked"]),
        attempt=row["attempt"],
        idempotency_key=row["idempotency_key"],
        result=row["result"],
        error=row["error"],
        resolved_by=row["resolved_by"],
        started_at=moment(row["started_at"]),
        finished_at=moment_or_none(row["finished_at"]),
        ask=row["ask"],
        request=decoded(row["request"]) or {},
        approved=bool(row["approved"]),
        asked_at=moment_or_none(row["asked_at"]),
        expires_at=moment_or_none(row["expires_at"]),
        on_expiry=row["on_expiry"],
        awaits=row["awaits"],
        escalate_queue=row["escalate_queue"],
    )


def inbox_item_from(row: Row, effect: Effect | None, path: list[str]) -> InboxItem:
    """A row of durably_runs, joined with the effect that it waits for, or with since when.

    Args:
        path: the keys of the runs above it, and its own.
    """
    return InboxItem(
        run_key=row["run_key"],
        agent=row["agent"],
        queue=row["queue"],
        tags=decoded(row["tags"]),
        effect=effect,
        waiting=waiting_from(row) or {},
        since=effect.asked_at or effect.started_at if effect else moment(row["since"]),
        path=path,
        worker=row["called_by"] if effect else None,
        run_id=row["run_id"],
    )


def shared_budget_from(row: Row) -> SharedBudget:
    """A row of durably_budgets."""
    return SharedBudget(
        scope=row["scope"],
        name=row["name"],
        limits=Budget.from_json(decoded(row["limits"])),
        spent=Spent(
            row["spent_requests"],
            row["spent_tokens"],
            row["spent_tool_calls"],
            row["spent_nanousd"],
        ),
        changed_at=moment(row["changed_at"]),
    )


def notice_from(row: Row) -> Notice:
    """A row of durably_notices."""
    about_run = row["response"] is None
    return Notice(
        id=row["id"],
        run_id=row["run_id"],
        position=None if about_run else CallPosition(row["response"], row["call"], row["step"]),
        kind=row["kind"],
        attempt=row["attempt"],
        reason=row["reason"],
        made_at=moment(row["made_at"]),
        tries=row["tries"],
        taken_by=tuple(decoded(row["taken_by"])),
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
    """A row of durably_actions."""
    return Action(
        id=row["id"],
        at=moment(row["at"]),
        by=row["by"],
        action=row["action"],
        run_key=row["run_key"],
        subject=row["subject"],
        data=decoded(row["data"]),
    )


def signal_from(row: Row) -> Signal:
    """A row of durably_signals."""
    taken = row["taken_step"] is not None
    place = (row["taken_response"], row["taken_call"], row["taken_step"])
    return Signal(
        id=row["id"],
        run_id=row["run_id"],
        name=row["name"],
        payload=decoded(row["payload"]),
        by=row["by"],
        signal_id=row["signal_id"],
        sent_at=moment(row["sent_at"]),
        taken_by=CallPosition(*place) if taken else None,
    )


def attempt_from(row: Row) -> Attempt:
    """A row of durably_attempts."""
    return Attempt(
        run_id=row["run_id"],
        attempt=row["attempt"],
        worker_id=row["worker_id"],
        started_at=moment(row["started_at"]),
        ended_at=moment_or_none(row["ended_at"]),
        outcome=None if row["outcome"] is None else AttemptOutcome(row["outcome"]),
        error=row["error"],
        traceback=row["traceback"],
        fingerprint=row["fingerprint"],
    )


def event_from(row: Row) -> Event:
    """A row of durably_events joined with its run's key."""
    return Event(
        id=row["id"],
        run_key=row["run_key"],
        kind=row["kind"],
        attempt=row["attempt"],
        data=decoded(row["data"]),
        at=moment(row["at"]),
    )


def worker_from(row: Row) -> WorkerRecord:
    """A row of durably_workers with its load."""
    return WorkerRecord(
        id=row["id"],
        name=row["name"],
        pid=row["pid"],
        queues=decoded(row["queues"]),
        started_at=moment(row["started_at"]),
        heartbeat_at=moment(row["heartbeat_at"]),
        expires_at=moment(row["expires_at"]),
        executing=row["executing"],
        alive=bool(row["alive"]),
    )


def queue_setting_from(row: Row) -> QueueSetting:
    """A row of durably_queues."""
    return QueueSetting(row["queue"], bool(row["paused"]), row["runs_at_once"])


def held_from(row: Row) -> HeldRun:
    """A run that a worker holds."""
    return HeldRun(row["id"], row["attempt"], row["cancel_requested_at"] is not None)
