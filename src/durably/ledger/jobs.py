"""Oban's jobs and the runs that they wake: what a job may do when it comes, and lost ones.

Owns the claim on behalf of a job; how jobs come, and what their ends mean to Oban, is the
dispatcher's. On SQLite there are no jobs, and none of them is ever lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from durably.errors import TransitionRefused
from durably.ledger import attempts, queues, reads, runs
from durably.ledger.fence import record_event
from durably.ledger.operations import (
    Operation,
    Statement,
    brief,
    execute,
    fetch,
    fetch_one,
    progress,
)
from durably.ledger.rows import input_from, run_from
from durably.ledger.threads import hold_thread
from durably.ledger.waking import dispatch
from durably.lifecycle import RunState
from durably.records import NewRun, RunInput, RunRecord

BY_OBAN = "oban"
"""Who is said to have cancelled or retried a run whose job was."""

BATCH = 500
"""How many lost wake-ups are mended in one look."""

_LATER = (RunState.SCHEDULED, RunState.RETRYABLE)


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A job that came.

    Attributes:
        job_id: Oban's id of it.
        key: the run that it wakes.
        scheduled_at: when the job was due; a person who retries a job sets it to that moment.
        repeated: True if Oban executes it again although it was neither rescued nor snoozed.
        snoozed: True if it came before and found its run held.
        asks: True if somebody asked for the run with it, rather than the run for a wake-up.
    """

    job_id: int
    key: str
    scheduled_at: datetime
    repeated: bool = False
    snoozed: bool = False
    asks: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Runs and jobs that no job, and no worker, will see to.

    Attributes:
        unwoken: due runs that nothing will wake, by id.
        cancelled: runs whose job was cancelled, by key.
        jobs: fetched by workers that died before there was a run for them, by worker.
    """

    unwoken: list[int]
    cancelled: list[str]
    jobs: dict[str, list[int]]


class Refusal(Enum):
    """Why a job is not to execute its run."""

    UNKNOWN = "unknown"
    HELD = "held"
    PAUSED = "paused"
    NOT_DUE = "not due"
    OVER = "over"
    CANCELLED = "cancelled"


def claim(worker_id: str, wakeup: Wakeup) -> Operation[RunRecord | Refusal]:
    """Take the run for the job, if it is due and nobody else's.

    A job that a person retried in Oban moves its run as `Durably`'s own words would: one that is
    not due yet is due now, a discarded or cancelled one is revived.
    """
    if wakeup.repeated:
        yield from hold_thread(wakeup.key)  # Before its run, as by everybody: it may be revived.
    row = yield from fetch_one("get_run_to_decide", key=wakeup.key)
    if row is None:
        return Refusal.UNKNOWN
    run = run_from(row)
    if wakeup.asks and not wakeup.repeated and row["job_id"] != wakeup.job_id:
        return Refusal.OVER  # The run is there, with a job of its own for whenever it is due.
    if run.state is RunState.EXECUTING:
        return Refusal.HELD
    if (yield from queues.get_setting(run.queue)).paused:
        return Refusal.PAUSED  # Asked here, so that nothing begins once pausing is committed.
    if run.state in (RunState.DISCARDED, RunState.CANCELLED):
        if not (wakeup.repeated and _is_newer(wakeup, run.finished_at)):
            return Refusal.CANCELLED if run.state is RunState.CANCELLED else Refusal.OVER
        try:
            revived = yield from runs.revive_quietly(run.key, BY_OBAN)
        except TransitionRefused:
            return Refusal.OVER  # Its thread has gone on without it.
        if revived.state is RunState.SUSPENDED:
            return Refusal.OVER  # It waits for its turn, and gets a job when that comes.
    elif run.state.final or run.state is RunState.SUSPENDED:
        return Refusal.OVER
    elif run.state in _LATER and _is_newer(wakeup, run.attempted_at or run.inserted_at):
        hastened = yield from execute("hasten_run", run_id=run.id)
        if hastened:
            yield from record_event(run.claim, "hastened", by=BY_OBAN)
    claimed = yield from attempts.claim_one(worker_id, run.id)
    if claimed is None:
        return Refusal.NOT_DUE
    yield from execute("take_job", run_id=run.id, job_id=wakeup.job_id)
    return claimed


@brief
@progress
def claim_many(worker_id: str, wakeups: Sequence[Wakeup]) -> Operation[dict[int, RunRecord]]:
    """`claim`, of many jobs in one statement, for as many as there is nothing to decide about.

    Returns:
        The runs, by job; `claim` says what is to become of the other jobs.
    """
    params = {
        "worker_id": worker_id,
        "run_keys": [wakeup.key for wakeup in wakeups],
        "job_ids": [wakeup.job_id for wakeup in wakeups],
    }
    rows = yield Statement("claim_wakeups", params, alone=True)
    return {
        row["job_id"]: run_from(row, None if row["prompt"] is None else input_from(row))
        for row in rows
    }


def _is_newer(wakeup: Wakeup, last: datetime | None) -> bool:
    return not wakeup.snoozed and last is not None and wakeup.scheduled_at > last


def insert(new: NewRun, job_id: int | None) -> Operation[tuple[RunRecord, RunInput | None]]:
    """Insert the run that a job asks for, unless the job came before.

    Args:
        job_id: the job, if it is also to wake the run.

    Returns:
        The run; and what it was asked, if it was there already.
    """
    run, created = yield from runs.insert(new, job_id, alone=True)
    return run, None if created else (yield from reads.get_input(run.id))


def list_lost() -> Operation[Lost]:
    """What nobody will see to by itself; a read."""
    unwoken = yield from fetch("list_lost_wakeups", limit=BATCH)
    cancelled = yield from fetch("list_cancelled_jobs", seconds=86_400.0, limit=BATCH)
    orphaned = yield from fetch("list_orphaned_jobs", limit=BATCH)
    jobs: dict[str, list[int]] = {}
    for row in orphaned:
        jobs.setdefault(row["worker_id"], []).append(row["id"])
    return Lost([row["id"] for row in unwoken], [row["key"] for row in cancelled], jobs)


def list_fetched(worker_id: str) -> Operation[list[int]]:
    """The jobs that Oban's table says this worker has; a read."""
    rows = yield from fetch("list_fetched_jobs", worker_id=worker_id)
    return [row["id"] for row in rows]


def free(worker_id: str, job_ids: list[int]) -> Operation[int]:
    """Let jobs be fetched again that a worker fetched in vain; returns how many.

    It died before it did anything for them; or it never heard that it had them, because its
    connection was lost while that was committed.
    """
    return (yield from execute("free_jobs", worker_id=worker_id, job_ids=job_ids))


def redispatch(run_ids: list[int]) -> Operation[list[RunRecord]]:
    """Give each run another job, unless somebody has seen to it meanwhile."""
    dispatched: list[RunRecord] = []
    for run_id in run_ids:
        row = yield from fetch_one("lock_lost_wakeup", run_id=run_id)
        if row is None:
            continue
        run = run_from(row)
        yield from execute("abandon_job", run_id=run.id, error="Its worker died.")
        yield from record_event(run.claim, "redispatched", reason="its job was lost")
        yield from dispatch(run)
        dispatched.append(run)
    return dispatched
