"""Rows of what people did, and of what they are told."""

from __future__ import annotations

from durably.ledger.columns import Columns, moment
from durably.ledger.operations import Row
from durably.records import Action, CallPosition, Decision, Notice


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
        data=columns.with_damage(data),
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
