"""Rows of tool calls, of what was sent to them, and of whose turn it is to decide."""

from __future__ import annotations

from durably.ledger.columns import Columns, moment
from durably.ledger.operations import Row
from durably.ledger.rows.runs import waiting_in
from durably.lifecycle import EffectState
from durably.records import CallPosition, Effect, InboxItem, Signal


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
        waiting=waiting_in(columns) or {},
        since=effect.asked_at or effect.started_at if effect else moment(row["since"]),
        path=path,
        worker=row["called_by"] if effect else None,
        run_id=row["run_id"],
        damage=(*columns.damage, *(effect.damage if effect else ())),
    )
