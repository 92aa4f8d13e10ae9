"""Dispatch by Oban: a job for each wake-up, in the queue of its run.

Owns the Oban instance of one worker and what the end of an attempt means to its job; what a job
may claim is the ledger's. Oban decides when and how many at once, the ledger that it is once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from oban import Cancel, Job, Oban, Snooze
from psycopg_pool import AsyncConnectionPool

from durably import boundaries
from durably.dispatch.claiming import Claims
from durably.dispatch.dispatcher import Slots, Start
from durably.dispatch.fetched import FetchedJobs
from durably.dispatch.queues import QueueSettings
from durably.dispatch.requests import Intake, RunRequest, read_args
from durably.errors import (
    ConfigError,
    DurablyError,
    LedgerError,
    LedgerUnavailable,
    TransitionRefused,
)
from durably.execution.ends import tell_end
from durably.execution.interrupts import interrupt_for
from durably.ledger import jobs, runs
from durably.ledger.jobs import Refusal, Wakeup
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.postgres.pool import AWAY, POOL_SECONDS, new_pool
from durably.lifecycle import RunState
from durably.records import RunRecord

log = logging.getLogger(__name__)

OWN = ("pool", "queues", "name", "node", "prefix", "dispatcher", "shutdown_grace_period")
"""Oban's options that durably sets itself."""

POOL_SIZE = 4
"""Connections of Oban's at most; it needs one for a moment at each fetch and acknowledgement."""

AGAIN_SECONDS = 1.0
"""How long until what the database was away for is tried again."""

STOP_SECONDS = 5.0
"""How long Oban may take to say good-bye to a database that may be away."""

SHOW_SECONDS = 1.0
"""How long telling others may take that a node has paused."""

LOOK_SECONDS = 0.25
"""How often to look whether somebody cancelled a job that is executing here."""

HELD_SECONDS = 5
MAX_HELD_SECONDS = 60
"""How long a job whose run is held snoozes: longer each time, since the run has its own job."""

_serving: ContextVar[ObanDispatcher | None] = ContextVar("durably_oban", default=None)


class AttemptFailed(DurablyError):
    """How Oban is told that an attempt failed; the run's next one has a job of its own."""


class RunAgent:
    """Oban's worker for every run; jobs name it ``durably.RunAgent``."""

    async def process(self, job: Job) -> object:
        """Execute the attempt that the job wakes."""
        dispatcher = _serving.get()
        if dispatcher is None:
            raise RuntimeError("durably.RunAgent works inside `durably worker` or app.worker().")
        return await dispatcher.process(job)

    def backoff(self, job: Job) -> int:
        """Seconds until a job comes again whose run could not be claimed at all."""
        return min(2**job.attempt, 60)


# The name by which jobs call it, from any language.
RunAgent.__module__ = "durably"


class ObanDispatcher:
    """Executes the runs whose jobs Oban fetches on this node.

    Args:
        worker_id: also Oban's name for this node.
        queues: those that this worker serves.
        slots: whether it may claim anything; how much is Oban's to count.
        intake: makes runs of what jobs of other languages ask for.
        options: for `oban.Oban`, apart from those that durably sets itself.

    Raises:
        ConfigError: an option is durably's to set.
    """

    def __init__(
        self,
        ledger: PostgresDatabase,
        worker_id: str,
        queues: QueueSettings,
        slots: Slots,
        intake: Intake,
        options: Mapping[str, Any],
    ) -> None:
        if taken := sorted(set(options) & set(OWN)):
            raise ConfigError(f"oban option {taken[0]!r} is set by durably itself; leave it out.")
        self._ledger = ledger
        self._worker_id = worker_id
        self._queues = queues
        self._slots = slots
        self._intake = intake
        self._options = dict(options)
        self._pool: AsyncConnectionPool[Any] | None = None
        self._oban: Oban | None = None
        self._start: Start | None = None
        self._executing: dict[int, tuple[Job, str]] = {}
        self._fetched = FetchedJobs(ledger, worker_id)
        self._claims = Claims(ledger, worker_id)
        self._leaving = False

    def slot_freed(self) -> None:
        """Oban counts for itself: a job that ends makes room."""

    async def run(self, start: Start) -> None:
        self._start = start
        await self._begin()
        changed, news = set(self._queues.names), asyncio.Event()

        def note(queue: str) -> None:
            changed.add(queue)
            news.set()

        with self._queues.subscribe(note):
            try:
                while True:
                    news.clear()
                    await self._apply(changed)
                    await self._pass_on_cancels()
                    if await self._fetched.free_forgotten():
                        await self._say_again()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), timeout=LOOK_SECONDS)
            finally:
                self._leaving = True
                await self._pause()

    async def close(self) -> None:
        oban, pool = self._oban, self._pool
        self._oban = self._pool = None
        if oban is not None:
            # Oban stops nothing unless all of it was started; what was must not go on fetching.
            oban._signal_token = oban._signal_token or "none"  # pyright: ignore
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await oban.stop()
            except Exception as error:
                # Its jobs stay `executing`; their runs are settled, so that rescuing them is idle.
                log.warning("Oban could not be stopped in order: %s", str(error) or repr(error))
        if pool is not None:
            await pool.close(timeout=POOL_SECONDS)

    # --- one job

    async def process(self, job: Job) -> object:
        """Execute the attempt that a job wakes; the value tells Oban how the job ends."""
        assert job.id is not None, "it was fetched"
        with self._fetched.in_hand(job.id):
            try:
                return await self._process(job)
            except LedgerUnavailable as error:
                log.warning("job %d comes again: %s", job.id, error)
                return Snooze(int(AGAIN_SECONDS))

    async def _process(self, job: Job) -> object:
        assert self._start is not None and job.id is not None, "called by Oban, which was started"
        boundaries.reached("job:before")
        if self._leaving:
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
            run = await asyncio.shield(self._start(claimed))
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

    # --- Oban itself

    async def _begin(self) -> None:
        """Start Oban, as soon as the database lets it."""
        while True:
            self._pool = new_pool(self._ledger.where, "durably-oban", POOL_SIZE)
            await self._pool.open()
            self._oban = self._new_oban(self._pool)
            # Oban finds a job's worker by its name alone; the tasks that it starts from here on
            # find this dispatcher by their context.
            token = _serving.set(self)
            try:
                await self._oban.start()
                return
            except AWAY as error:
                log.warning("Oban cannot be started yet: %s", error)
            finally:
                _serving.reset(token)
            await asyncio.sleep(AGAIN_SECONDS)
            await self.close()

    def _new_oban(self, pool: AsyncConnectionPool[Any]) -> Oban:
        return Oban(
            pool=pool,
            node=self._worker_id,
            prefix=self._ledger.where.schema,
            queues={
                name: {"limit": self._queues.limit(name), "paused": self._queues.paused(name)}
                for name in self._queues.names
            },
            shutdown_grace_period=None,
            **self._options,
        )

    async def _apply(self, changed: set[str]) -> None:
        """Have Oban's producers on this node do as the queues are set."""
        assert self._oban is not None, "begun"
        for queue in list(changed):
            limit, paused = self._queues.limit(queue), self._queues.paused(queue)
            try:
                info = self._oban.check_queue(queue)
                if info is not None and info.limit != limit:
                    await self._oban.scale_queue(queue=queue, node=self._worker_id, limit=limit)
                if info is not None and info.paused != paused:
                    turn = self._oban.pause_queue if paused else self._oban.resume_queue
                    await turn(queue, node=self._worker_id)
            except Exception as error:
                log.warning("queue %s could not be set in Oban now: %s", queue, error)
                return
            changed.discard(queue)

    async def _say_again(self) -> None:
        """Have Oban's producers say once more how jobs ended: they do so whenever they are set."""
        assert self._oban is not None, "begun"
        for queue in self._queues.names:
            limit = self._queues.limit(queue)
            try:
                await self._oban.scale_queue(queue=queue, node=self._worker_id, limit=limit)
            except Exception as error:
                log.warning("queue %s cannot say now how its jobs ended: %s", queue, error)

    async def _pause(self) -> None:
        assert self._oban is not None, "begun"
        pauses = [self._oban.pause_queue(q, node=self._worker_id) for q in self._queues.names]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHOW_SECONDS):
                # They fetch nothing more from here on; what they say to the database is for show.
                await asyncio.gather(*pauses, return_exceptions=True)

    async def _pass_on_cancels(self) -> None:
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
