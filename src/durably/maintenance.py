"""Background duties of every worker: rescue runs of dead workers, mend lost wake-ups, tell ends
that nobody told, let timers ring and approvals expire, wake runs whose budget has room, forget.

Owns when; what rescuing means is one transition of the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from durably import boundaries
from durably.errors import EffectNotFound, LedgerUnavailable, RunNotFound, TransitionRefused
from durably.execution.apart import apart
from durably.execution.away import Away
from durably.execution.ends import tell_end, tell_ends
from durably.execution.funding import wake_funded
from durably.execution.interrupts import interrupt_all
from durably.execution.lease import WorkerLease
from durably.ledger import attempts, expiry, jobs, runs, workers
from durably.ledger.database import Database
from durably.ledger.stepping import Pace, find_step

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a worker looks for dead ones; the look is one indexed read."""

LOST_SECONDS = 5.0
"""How often it looks for runs that nothing will wake, and for jobs that somebody cancelled."""

EXPIRED_AT_ONCE = 100
"""How many times that are over are looked up in one read."""

FORGET_WORKERS_SECONDS = 24 * 3600.0
"""How long a dead worker stays listed, so that somebody can see that it died."""


async def maintain(ledger: Database, lease: WorkerLease) -> None:
    """Keep the house until cancelled.

    Any worker rescues any other's runs, under whatever name it runs. One whose own heartbeat
    could not be written in time looks on, and for a while after it could be again: the database
    was away, and the others may be as alive as itself. So may they be when the clock was set.
    """
    away = Away(log, "maintenance")
    forgotten_at = mended_at = 0.0
    funded_to = 0
    loop = asyncio.get_running_loop()
    while True:
        try:
            steady = lease.steady
            if steady:
                await _rescue(ledger, lease.pace, lambda: lease.steady)
            if steady and loop.time() - mended_at > LOST_SECONDS:
                if not await ledger.read(find_step, lease.pace):
                    await _mend_wakeups(ledger)
                mended_at = loop.time()
            funded_to = await _let_go_on(ledger, funded_to)
            if loop.time() - forgotten_at > FORGET_WORKERS_SECONDS / 24:
                await ledger.write(workers.prune, FORGET_WORKERS_SECONDS)
                forgotten_at = loop.time()
            away.over()
        except LedgerUnavailable as error:
            away.now(error)
        await asyncio.sleep(LOOK_SECONDS)


async def catch_up(ledger: Database) -> None:
    """All that the duties would do now, once: afterwards, whatever can go on is due.

    Raises:
        LedgerUnavailable: the database is away.
    """
    await _rescue(ledger)
    await _mend_wakeups(ledger)
    page = await _let_go_on(ledger, 0)
    while page:
        page = await wake_funded(ledger, page)


async def _rescue(
    ledger: Database, pace: Pace | None = None, steady: Callable[[], bool] = lambda: True
) -> None:
    """Take the runs of dead workers.

    Raises:
        LedgerUnavailable: the database is away, or stood still while it was asked.
    """
    if await ledger.read(attempts.count_orphans):
        for run in await ledger.write(attempts.rescue, pace, steady):
            log.warning("rescued run %r: attempt %d was lost", run.key, run.attempt)
            with apart(f"telling the end of run {run.key!r}"):
                await tell_end(ledger, run)


async def _let_go_on(ledger: Database, funded_to: int) -> int:
    """Wake what nobody woke who had to, or what need not wait any longer."""
    await tell_ends(ledger)
    await interrupt_all(ledger)
    await expire_due(ledger)
    return await wake_funded(ledger, funded_to)


async def _mend_wakeups(ledger: Database) -> None:
    """Cancel runs whose job was cancelled; wake those whose job is gone, or is a dead worker's."""
    lost = await ledger.read(jobs.list_lost)
    for key in lost.cancelled:
        with contextlib.suppress(TransitionRefused, RunNotFound):  # It ended meanwhile.
            await tell_end(ledger, await ledger.write(runs.cancel, key, jobs.BY_OBAN))
            log.info("run %r is cancelled: its job was", key)
    for worker_id, job_ids in lost.jobs.items():
        freed = await ledger.write(jobs.free, worker_id, job_ids)
        log.warning("%d jobs of the dead worker %s can be fetched again", freed, worker_id)
    if lost.unwoken:
        for run in await ledger.write(jobs.redispatch, lost.unwoken):
            log.warning("run %r was given another job: nothing would have woken it", run.key)


async def expire_due(ledger: Database) -> int:
    """Do what is to be done now that the times of waits and questions are over; returns how many.

    Raises:
        LedgerUnavailable: the database is away.
    """
    expired, before = 0, -1
    while expired > before:
        before = expired
        overdue = await ledger.read(expiry.list_expired, EXPIRED_AT_ONCE)
        for key, call_id in overdue:
            with (
                apart(f"ending the wait of call {call_id} of run {key!r}"),
                contextlib.suppress(TransitionRefused, RunNotFound, EffectNotFound),
            ):  # Somebody decides at this moment, or has.
                boundaries.reached("expiry:before")
                if (effect := await ledger.write(expiry.expire, key, call_id)) is not None:
                    expired += 1
                    log.info("call %s of run %r: its time is over (%s)", call_id, key, effect.ask)
                boundaries.reached("expiry:after")
    return expired
