"""What makes a run go on: a job for each wake-up, and waking it once nothing is left to decide.

Apart from the other transitions because whatever settles an effect needs it: a decision, a suspend
that finds everything decided, late evidence.
"""

from __future__ import annotations

from durably.ledger.fence import record_event
from durably.ledger.operations import Operation, execute, fetch_one
from durably.ledger.rows import run_from
from durably.lifecycle import RunState
from durably.records import RunRecord

DISPATCHED = frozenset({RunState.AVAILABLE, RunState.SCHEDULED, RunState.RETRYABLE})
"""States in which a run waits for a worker to claim it, now or once it is due."""


def dispatch(run: RunRecord) -> Operation[None]:
    """See to it that somebody claims the run once it is due; does nothing if it waits or is over.

    In the transaction that made it so: where a dispatcher works from jobs, there is one exactly if
    the run is to go on.
    """
    if run.state in DISPATCHED:
        yield from execute("insert_job", run_id=run.id)


def wake_if_settled(run_id: int, by: str = "decisions") -> Operation[RunRecord | None]:
    """Wake a run that waits for people once nothing is left to decide; None if something is."""
    row = yield from fetch_one("wake_settled_run", run_id=run_id)
    if row is None:
        return None
    run = run_from(row)
    yield from record_event(run.claim, "woken", by=by)
    yield from dispatch(run)
    return run
