"""An attempt's beginning and its end: the transitions of runs between claim and settle.

Owns what else belongs to one: the attempt's row and its event, in the same transaction, named as in
`durably.lifecycle`. The attempt's own writes in between are in `durably.ledger.steps`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from durably.errors import LedgerUnavailable
from durably.ledger import deltas, notices
from durably.ledger.budgets import wake_if_funded
from durably.ledger.fence import lease_lost, record_event
from durably.ledger.operations import (
    Operation,
    Row,
    Statement,
    brief,
    execute,
    fetch,
    fetch_one,
    progress,
)
from durably.ledger.rows import input_from, run_from
from durably.ledger.stepping import Pace, find_step
from durably.ledger.steps import record_step
from durably.ledger.waking import dispatch, wake_if_over, wake_if_settled
from durably.ledger.whole import touch_params
from durably.ledger.written import Step
from durably.lifecycle import AttemptOutcome, RunState
from durably.records import Claim, RunRecord

LEASE_ENDED = "The worker's lease ended before the attempt did."


@progress
def claim(worker_id: str, queue: str, limit: int) -> Operation[list[RunRecord]]:
    """Take up to ``limit`` due runs of a queue: by priority, then by when they were due.

    None of a paused queue: asked here, so that no attempt begins once pausing it is committed.
    """
    rows = yield from fetch("claim_runs", worker_id=worker_id, queue=queue, limit=limit)
    if not rows:
        return []
    ids = json.dumps([row["id"] for row in rows])
    yield from execute("begin_attempts", ids=ids)
    yield from execute("insert_claimed_events", ids=ids)
    inputs = yield from fetch("list_inputs", ids=ids)
    asked = {row["run_id"]: input_from(row) for row in inputs}
    claimed = [run_from(row, asked.get(row["id"])) for row in rows]
    return sorted(claimed, key=lambda r: (r.priority, r.scheduled_at, r.id))


@progress
def claim_one(worker_id: str, run_id: int) -> Operation[RunRecord | None]:
    """Take one run if it is due; None if somebody else has it or it is not due.

    Also one of a paused queue: whoever names a run means it.
    """
    row = yield from fetch_one("claim_run", worker_id=worker_id, run_id=run_id)
    if row is None:
        return None
    run = run_from(row)
    yield from _begin_attempt(run)
    return run


@brief
def complete(claim: Claim, output: str, step: Step, *, alone: bool = False) -> Operation[RunRecord]:
    """Store the output; the run is over.

    Args:
        alone: that nothing else is written with it.
    """
    if not step.counts_alone:
        yield from record_step(claim, step)
    touched = touch_params(claim, step) | {"output": output}

    def in_parts() -> Operation[Sequence[Row]]:
        row = yield from fetch_one("complete_run", **touched)
        if row is None:
            return ()
        yield from _end_attempt(claim, AttemptOutcome.COMPLETED, None, None, "completed", {})
        return [row]

    alone = alone and step.counts_alone
    rows = yield Statement("complete_attempt", touched, alone=alone, instead=in_parts)
    if not rows:
        raise (yield from lease_lost(claim))
    if step.streams:
        # The output is shown with the run's end: what led to it need not be taken back.
        yield from deltas.drop(claim)
    return run_from(rows[0])


@brief
def fail(
    claim: Claim, error: str, traceback: str, delay_seconds: float, step: Step
) -> Operation[RunRecord]:
    """Count a failure: try again after the delay, or discard at ``max_attempts``."""
    yield from record_step(claim, step)
    return (
        yield from _settle(
            claim,
            "fail_run",
            AttemptOutcome.FAILED,
            step,
            error=error,
            traceback=traceback,
            delay_seconds=delay_seconds,
        )
    )


@brief
def discard(claim: Claim, error: str, traceback: str, step: Step) -> Operation[RunRecord]:
    """Give up on a permanent error; the history is kept."""
    yield from record_step(claim, step)
    return (
        yield from _settle(
            claim, "discard_run", AttemptOutcome.DISCARDED, step, error=error, traceback=traceback
        )
    )


@brief
def suspend(
    claim: Claim, waiting_kind: str, waiting_on: dict[str, Any], step: Step
) -> Operation[RunRecord]:
    """Wait; if what it waits for has come meanwhile, be available at once."""
    yield from record_step(claim, step)
    run = yield from _settle(
        claim,
        "suspend_run",
        AttemptOutcome.SUSPENDED,
        step,
        waiting_kind=waiting_kind,
        waiting_on=json.dumps(waiting_on),
    )
    over = [wait["call_id"] for wait in waiting_on.get("waits", ())]
    woken = (yield from wake_if_settled(run.id)) or (yield from wake_if_over(run.id, over))
    woken = woken or (yield from wake_if_funded(run))
    if woken is None and run.state is RunState.SUSPENDED:
        yield from notices.note_waiting(run)
    return woken or run


@brief
def hand_back(claim: Claim, step: Step) -> Operation[RunRecord]:
    """Give the run to any worker, at once, without counting a failure."""
    yield from record_step(claim, step)
    return (yield from _settle(claim, "hand_back_run", AttemptOutcome.HANDED_BACK, step))


@brief
def stop(claim: Claim, step: Step) -> Operation[RunRecord]:
    """End a run that was asked to stop."""
    yield from record_step(claim, step)
    return (yield from _settle(claim, "stop_run", AttemptOutcome.CANCELLED, step))


def count_orphans() -> Operation[int]:
    """How many runs are executing under a worker whose lease is over; a read."""
    row = yield from fetch_one("count_orphans")
    return 0 if row is None else row["runs"]


def rescue(
    pace: Pace | None = None, steady: Callable[[], bool] = lambda: True
) -> Operation[list[RunRecord]]:
    """Take runs from dead workers: another try, or discard after too many crashes.

    Args:
        pace: of the worker that does it: none is dead because the clock was set a moment ago.
        steady: whether that worker's own heartbeats get through. Asked in the end: the database
            may have stood still while it was asked who is dead, and then all of them seem so.

    Raises:
        LedgerUnavailable: they do not; nothing is rescued.
    """
    rescued: list[RunRecord] = []
    if pace is not None and (yield from find_step(pace)):
        return rescued
    for orphan in (yield from fetch("list_orphans")):
        row = yield from fetch_one("rescue_run", run_id=orphan["id"])
        if row is None:
            continue
        run = run_from(row)
        rescued.append(run)
        yield from execute("doubt_effects", run_id=run.id, attempt=run.attempt)
        yield from execute(
            "end_attempt",
            run_id=run.id,
            attempt=run.attempt,
            outcome=AttemptOutcome.LOST,
            error=LEASE_ENDED,
            traceback=None,
        )
        if run.stream is not False:  # Only its agent's registration may say whether it does.
            yield from deltas.withdraw(run.claim)
        yield from execute("abandon_job", run_id=run.id, error=LEASE_ENDED)
        yield from record_event(run.claim, "rescued", state=run.state, crashes=run.crashes)
        yield from dispatch(run)
    if rescued and not steady():
        raise LedgerUnavailable(
            "The database stood still for a while: nobody counts as dead by that."
        )
    return rescued


def _begin_attempt(run: RunRecord) -> Operation[None]:
    yield from execute(
        "insert_attempt", run_id=run.id, attempt=run.attempt, worker_id=run.worker_id
    )
    yield from record_event(run.claim, "claimed", worker=run.worker_id)


def _settle(
    claim: Claim,
    statement: str,
    outcome: AttemptOutcome,
    step: Step,
    *,
    error: str | None = None,
    traceback: str | None = None,
    **params: object,
) -> Operation[RunRecord]:
    """End the attempt: the fenced update of the run, then what belongs to it."""
    row = yield from fetch_one(
        statement, run_id=claim.run_id, attempt=claim.attempt, error=error, **params
    )
    if row is None:
        raise (yield from lease_lost(claim))
    run = run_from(row)
    if step.streams:
        yield from deltas.withdraw(run.claim)
    data = {"error": error} if error else {}
    if run.state is RunState.RETRYABLE:
        data["retry_at"] = run.scheduled_at.isoformat()
    # A failure at the limit ends the run: its event says what became of the run.
    kind = str(run.state) if run.state.final or run.state is RunState.SUSPENDED else str(outcome)
    yield from _end_attempt(run.claim, outcome, error, traceback, kind, data)
    yield from dispatch(run)
    return run


def _end_attempt(
    claim: Claim,
    outcome: AttemptOutcome,
    error: str | None,
    traceback: str | None,
    kind: str,
    data: dict[str, Any],
) -> Operation[None]:
    """What an attempt's end leaves: calls in doubt, how it ended, and an event of this kind."""
    ended: dict[str, object] = {
        "run_id": claim.run_id,
        "attempt": claim.attempt,
        "outcome": outcome.value,
        "error": error,
        "traceback": traceback,
    }

    def in_parts() -> Operation[Sequence[Row]]:
        yield from execute("doubt_effects", run_id=claim.run_id, attempt=claim.attempt)
        yield from execute("end_attempt", **ended)
        yield from record_event(claim, kind, **data)
        return ()

    params = ended | {"kind": kind, "data": json.dumps(data)}
    yield Statement("close_attempt", params, instead=in_parts)
