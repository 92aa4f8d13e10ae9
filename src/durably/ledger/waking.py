"""What makes a run go on: a job for each wake-up, and waking it once what it waits for has come.

Apart from the other transitions because whatever settles an effect needs it: a decision, a suspend
that finds everything decided, late evidence, a signal, a timer, the end of a child.
"""

from __future__ import annotations

from collections.abc import Iterable

from durably.ledger.fence import record_event
from durably.ledger.operations import Operation, execute, fetch_one
from durably.ledger.rows import run_from
from durably.lifecycle import EffectState, RunState
from durably.records import CallPosition, RunRecord

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
    return (yield from _wake("wake_settled_run", run_id, by))


def wake_waiting(run_id: int, by: str) -> Operation[RunRecord | None]:
    """Wake a suspended run because something that it waits for has come; None if it is going."""
    return (yield from _wake("wake_waiting_run", run_id, by))


def wake_if_over(run_id: int, call_ids: Iterable[str]) -> Operation[RunRecord | None]:
    """Wake a run that was just suspended if one of these waits was over by then."""
    for call_id in call_ids:
        position = CallPosition.from_id(call_id)
        row = yield from fetch_one("get_effect", run_id=run_id, **position._asdict())
        if row is None or row["state"] != EffectState.AWAITING:
            return (yield from wake_waiting(run_id, by="a wait that was over already"))
    return None


def _wake(statement: str, run_id: int, by: str) -> Operation[RunRecord | None]:
    row = yield from fetch_one(statement, run_id=run_id)
    if row is None:
        return None
    run = run_from(row)
    yield from record_event(run.claim, "woken", by=by)
    yield from dispatch(run)
    return run
