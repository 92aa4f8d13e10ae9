"""Executing in the caller's own process, for a moment: one run, or all that is due.

Owns the temporary worker and what it claims; attempts are executed as everywhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from durably.errors import LedgerUnavailable
from durably.execution.away import Away
from durably.execution.executor import Executor
from durably.ledger import attempts, children
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.lifecycle import allowed
from durably.maintenance import catch_up
from durably.records import RunRecord
from durably.run import Run
from durably.worker import Worker, WorkerOptions

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""How often `run_here` looks whether a run that is not due, or is held elsewhere, is now its."""

INTERRUPT_SECONDS = 5.0
"""Grace of a script that is interrupted: long enough to end a step, short enough for Ctrl-C."""


async def run_here[OutputT](
    ledger: Database, executor: Executor, run: Run[OutputT], lease_seconds: float
) -> OutputT:
    """Claim and execute one run, and its children, until it ends; wait where others have them.

    Whoever asks for this run here and now means it: also when its queue is paused. Where other
    runs of its thread come first, it waits until somebody else has executed them.

    Raises:
        RunSuspended: the run waits for a decision or a signal.
        RunDiscarded, RunCancelled: it ended without an output.
    """
    options = WorkerOptions({run.record.queue: 1}, lease_seconds, INTERRUPT_SECONDS)
    away = Away(log, f"run {run.key!r}")
    async with _working(ledger, executor, options) as worker:
        while True:
            try:
                await run.refresh()
                away.over()
                family = [run.record, *await ledger.read(_descendants, run.record.id)]
                claimed = [
                    record
                    for member in family
                    if worker.alive
                    and allowed("claim", member.state)
                    and (record := await ledger.write(attempts.claim_one, worker.id, member.id))
                ]
                if claimed:
                    await asyncio.gather(*(worker.execute(record) for record in claimed))
                    continue
                if run.state.final or all(map(_waits_for_others, family)):
                    return await run.result(wait_suspended=False)
            except LedgerUnavailable as error:
                away.now(error)
            await asyncio.sleep(LOOK_SECONDS)


async def drain_here(ledger: Database, executor: Executor, queues: Mapping[str, int]) -> int:
    """Execute until nothing is due any more, also no timer; returns how many attempts were made.

    Runs of workers whose lease is over are taken as well, and whatever a process that died left.
    Queues are served as by a worker: not while they are paused, and as they are scaled.
    """
    made = 0
    options = WorkerOptions(queues)
    # Maintenance is done here, in turn: beside this, it would have what this is to find.
    async with _working(ledger, executor, options, maintenance=False) as worker:
        while True:
            await catch_up(ledger)
            if not worker.alive:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            claimed = [
                run
                for queue in queues
                for run in await ledger.write(
                    attempts.claim, worker.id, queue, worker.queues.limit(queue)
                )
            ]
            if not claimed:
                return made
            await asyncio.gather(*(worker.execute(run) for run in claimed))
            made += len(claimed)


def _descendants(run_id: int) -> Operation[list[RunRecord]]:
    """The open runs that a run has started, and those that they have."""
    found = yield from children.list_open(run_id)
    for child in list(found):
        found += yield from _descendants(child.id)
    return found


def _waits_for_others(run: RunRecord) -> bool:
    """True if nothing makes the run go on but people and signals: no time, no run, no turn."""
    waiting = run.waiting_on
    if waiting is None or run.in_line:
        return False
    return not any(w["for"] == "child" or "until" in w for w in waiting.get("waits", ()))


@asynccontextmanager
async def _working(
    ledger: Database, executor: Executor, options: WorkerOptions, *, maintenance: bool = True
) -> AsyncGenerator[Worker]:
    worker = Worker(ledger, executor, options)
    await worker.start(dispatch=False, maintenance=maintenance)
    try:
        yield worker
    finally:
        await worker.stop()
