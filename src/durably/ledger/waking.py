"""Waking a run that waits for people, once nothing is left to decide.

Apart from the other transitions because whatever settles an effect needs it: a decision, a suspend
that finds everything decided, late evidence.
"""

from __future__ import annotations

from durably.ledger.fence import record_event
from durably.ledger.operations import Operation, fetch_one
from durably.ledger.rows import run_from
from durably.records import RunRecord


def wake_if_settled(run_id: int, by: str = "decisions") -> Operation[RunRecord | None]:
    """Wake a run that waits for people once nothing is left to decide; None if something is."""
    row = yield from fetch_one("wake_settled_run", run_id=run_id)
    if row is None:
        return None
    run = run_from(row)
    yield from record_event(run.claim, "woken", by=by)
    return run
