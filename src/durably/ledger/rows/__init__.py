"""Rows to records: the one place that knows which column becomes what.

A row that is damaged becomes a record that says so; `columns` knows how a value is read.
"""

from __future__ import annotations

from durably.ledger.rows.calls import effect_from, inbox_item_from, signal_from
from durably.ledger.rows.operating import (
    held_from,
    queue_setting_from,
    shared_budget_from,
    worker_from,
)
from durably.ledger.rows.people import action_from, decision_from, notice_from
from durably.ledger.rows.runs import (
    attempt_from,
    event_data,
    event_from,
    input_from,
    message_from,
    run_from,
    tags_from,
    usage_from,
    waiting_from,
)

__all__ = [
    "action_from",
    "attempt_from",
    "decision_from",
    "effect_from",
    "event_data",
    "event_from",
    "held_from",
    "inbox_item_from",
    "input_from",
    "message_from",
    "notice_from",
    "queue_setting_from",
    "run_from",
    "shared_budget_from",
    "signal_from",
    "tags_from",
    "usage_from",
    "waiting_from",
    "worker_from",
]
