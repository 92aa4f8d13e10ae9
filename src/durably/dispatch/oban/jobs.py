"""What becomes of one job that Oban has fetched: the attempt that it wakes, and how it ends.

Owns what Oban is told; what a job may claim is the ledger's. Oban decides when and how many at
once, the ledger that it is once.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar

from oban import Cancel, Job, Snooze

from durably import boundaries
from durably.dispatch.dispatcher import Slots, Start
from durably.dispatch.oban.claiming import Claims
from durably.dispatch.oban.fetched import FetchedJobs
from durably.dispatch.requests import Intake, RunRequest, read_args
from durably.errors import DurablyError, LedgerError, LedgerUnavailable, TransitionRefused
from durably.execution.ends import tell_end
from durably.execution.interrupts import interrupt_for
from durably.ledger import jobs, runs
from durably.ledger.database import Database
from durably.ledger.jobs import Refusal, Wakeup
from durably.lifecycle import RunState
from durably.records import RunRecord

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
"""How long until what the database was away for is tried again."""

HELD_SECONDS = 5
MAX_HELD_SECONDS = 60
"""How long a job whose run is held snoozes: longer each time, since the run has its own job."""

serving: ContextVar[Jobs | None] = ContextVar("durably_oban", default=None)
"""Whose jobs are processed: Oban finds a job's worker by its name alone."""


class AttemptFailed(DurablyError):
    """How Oban is told that an attempt failed; the run's next one has a job of its own."""


class RunAgent:
    """Oban's worker for every run; jobs name it ``durably.RunAgent``."""

    async def process(self, job: Job) -> object:
        """Execute the attempt that the job wakes."""
        fetched = serving.get()
        if fetched is None:
            raise RuntimeError("durably.RunAgent works inside `durably worker` or app.worker().")
        return await fetched.process(job)

    def backoff(self, job: Job) -> int:
        """Seconds until a job comes again whose run could not be claimed at all."""
        return min(2**job.attempt, 60)


# The name by which jobs call it, from any language.
RunAgent.__module__ = "durably"


class Jobs:
    """The jobs that one node has fetched.

    Args:
        slots: whether it may claim anything; how much is Oban's to count.
        intake: makes runs of what jobs of other languages ask for.

    Attributes:
        start: begins an attempt; set before the first job comes.
        leaving: True once the worker starts nothing more.
        fetched: the jobs that this node has.
    """

    def __init__(self, ledger: Database, worker_id: str, slots: Slots, intake: Intake) -> None:
        self.start: Start | None = None
        self.leaving = False
        self.fetched = FetchedJobs(ledger, worker_id)
        self._ledger = ledger
        self._slots = slots
        self._intake = intake
        self._claims = Claims(ledger, worker_id)
        self._executing: dict[int, tuple[Job, str]] = {}

    async def process(self, job: Job) -> object:
        """Execute the attempt that a job wakes; the value tells Oban how the job ends."""
        assert job.id is not None, "it was fetched"
        with self.fetched.in_hand(job.id):
            try:
                return await self._process(job)
            except LedgerUnavailable as error:
                log.warning("job %d comes again: %s", job.id, error)
                return Snooze(int(AGAIN_SECONDS))

    async def _process(self, job: Job) -> object:
        assert self.start is not None and job.id is not None, "called by Oban, which was started"
        boundaries.reached("job:before")
        if self.leaving:
            return Snooze(0)
        if not self._slots.alive:
            return Snooze(int(AGAIN_SECONDS))
        try:
            request = read_args(job.args)
            if isinstance(request, RunRequest):
                await self._make_run(job, request)
        except LedgerError:
            raise  # Nothing is known against the job: Oban tries it again.
        except DurablyError as error:
            return Cancel(str(error))
        key = request.key
        wakeup = _wakeup(job, key, asks=isinstance(request, RunRequest))
        claimed = await self._claims.claim(wakeup)
        if isinstance(claimed, Refusal):
            return self._refused(job, key, claimed)
        self._executing[job.id] = (job, key)
        try:
            run = await asyncio.shield(self.start(claimed))
        finally:
            del self._executing[job.id]
        boundaries.reached("job:after")
        return _ended(job, run)

    async def _make_run(self, job: Job, request: RunRequest) -> None:
        """Make the run that a job asks for, unless it is there."""
        assert job.id is not None, "it was fetched"
        completed = request.model_copy(
            update={
                "queue": request.queue or job.queue,
                "priority": job.priority if request.priority is None else request.priority,
                "tags": list(job.tags) if request.tags is None else request.tags,
            }
        )
        new = self._intake.new_run(completed)
        wakes = job.id if new.queue == job.queue else None
        run, asked = await self._ledger.write(jobs.insert, new, wakes)
        if asked is not None:
            self._intake.check_same(new, run, asked)
        else:
            await interrupt_for(self._ledger, run)

    def _refused(self, job: Job, key: str, refusal: Refusal) -> object:
        match refusal:
            case Refusal.HELD:
                snoozed = int(job.meta.get("snoozed", 0))
                seconds = min(HELD_SECONDS * (snoozed + 1), MAX_HELD_SECONDS)
                return Snooze(seconds, meta={"durably": "held"})
            case Refusal.PAUSED:
                # Fetched at the moment of the pause: it waits in the paused queue like the rest.
                return Snooze(1)
            case Refusal.UNKNOWN:
                return Cancel(f"No run has the key {key!r}; it may have been pruned.")
            case Refusal.CANCELLED:
                return Cancel(f"Run {key!r} was cancelled.")
            case Refusal.NOT_DUE | Refusal.OVER:
                return None

    async def pass_on_cancels(self) -> None:
        """A job that was cancelled in Oban while it executes here cancels its run."""
        for job, key in list(self._executing.values()):
            if not job.cancelled():
                continue
            try:
                run = await self._ledger.write(runs.cancel, key, jobs.BY_OBAN)
                await tell_end(self._ledger, run)
            except TransitionRefused:
                continue  # It has just ended.
            except LedgerUnavailable as error:
                log.warning("run %r is not cancelled yet: %s", key, error)


def _wakeup(job: Job, key: str, *, asks: bool) -> Wakeup:
    assert job.id is not None and job.scheduled_at is not None, "it was fetched"
    rescued = int(job.meta.get("rescued", 0))
    return Wakeup(
        job_id=job.id,
        key=key,
        scheduled_at=job.scheduled_at,
        repeated=job.attempt > 1 + rescued,
        snoozed=job.meta.get("durably") == "held",
        asks=asks,
    )


def _ended(job: Job, run: RunRecord | None) -> object:
    """What an attempt's end means to its job. The run's next wake-up is another job."""
    if run is None:
        return None
    if run.state is RunState.CANCELLED:
        return Cancel(f"Run {run.key!r} was cancelled.")
    if run.state in (RunState.RETRYABLE, RunState.DISCARDED):
        # Shown in Oban as a failure; not tried again there.
        job.max_attempts = job.attempt
        raise AttemptFailed(run.error or f"The attempt failed; run {run.key!r} is {run.state}.")
    return None
