"""Rows of workers, queues and budgets."""

from __future__ import annotations

from durably.budgets import Budget, SharedBudget, Spent
from durably.ledger.columns import Columns
from durably.ledger.operations import Row
from durably.ledger.rows.runs import NOTHING
from durably.records import HeldRun, QueueSetting, WorkerRecord


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
