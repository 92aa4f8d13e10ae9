"""An attempt's writes while the database comes and goes: made again, and found out about.

Owns the pauses, and what is done about a write that nobody answered: it may have been committed.
What is written is the journal's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from durably.errors import LeaseLost, LedgerUnavailable
from durably.execution.control import AttemptControl, Ending
from durably.ledger import reads, steps
from durably.ledger.database import Database, ToolTransaction
from durably.ledger.operations import Operation, is_progress
from durably.ledger.written import CallOutcome
from durably.lifecycle import AttemptOutcome
from durably.records import Effect, RunRecord

CALLED_OFF_SECONDS = 10.0
"""How long a cancelled attempt waits for a write that is under way."""

PAUSE_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between tries while the database is unavailable; the last one repeats."""


class Writes:
    """How one attempt writes: patiently, for as long as its lease holds.

    A write that nobody answered is made again. The ledger's operations are such that the second
    time changes nothing; only where the first one ended the attempt, or was the tool's own
    transaction, has somebody to look.
    """

    def __init__(self, ledger: Database, run: RunRecord, control: AttemptControl) -> None:
        self._ledger = ledger
        self._run = run
        self._control = control

    async def read[T](self, operation: Callable[[], Operation[T]]) -> T:
        """Read, once the database is there.

        Raises:
            LeaseLost: it was away for longer than the lease.
        """
        return await _patiently(lambda: self._ledger.read(operation), self._control.check_lease)

    async def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Try a write until it is done: finished work is not thrown away by a lost connection.

        Raises:
            LeaseLost: another attempt owns the run, or may.
        """
        return await self.persist(lambda: self._ledger.write(operation, *args, **kwargs))

    async def write_late[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Make a write that needs no lease, however long the database is away."""
        return await _patiently(
            lambda: self._ledger.write(operation, *args, **kwargs), lambda: None
        )

    async def persist[T](self, write: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """`write`, for a write that is more than one operation.

        A cancelled attempt still finds out whether its write was committed, since a write that is
        under way cannot be called back.
        """

        async def to_its_end() -> T:
            pending = _begun(write())
            try:
                return await asyncio.shield(pending)
            except asyncio.CancelledError:
                # Waited for, not cancelled, even if this is cancelled once more.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({pending}, timeout=CALLED_OFF_SECONDS)
                # That it failed is nobody's to hear any more: why this is cancelled counts.
                pending.add_done_callback(_heard)
                raise

        try:
            return await _patiently(to_its_end, self._control.check_lease)
        except LeaseLost:
            self._control.end(Ending.LOST)
            raise

    async def settle(
        self, ending: AttemptOutcome, transition: Callable[[], Awaitable[RunRecord]]
    ) -> RunRecord:
        """Write the transition that ends the attempt.

        Args:
            ending: how the ledger says afterwards that the attempt ended.

        Returns:
            The run as it was then; or as it is by now, if nobody heard that it was committed.

        Raises:
            LeaseLost: another attempt owns the run, or this one ended otherwise.
        """
        unanswered = False

        async def write() -> RunRecord:
            nonlocal unanswered
            try:
                return await transition()
            except LedgerUnavailable:
                unanswered = True
                raise
            except LeaseLost:
                run = await self._ledger.read(_ended, self._run, ending) if unanswered else None
                if run is None:
                    raise
                return run

        return await self.persist(write)

    async def commit(self, transaction: ToolTransaction, outcome: CallOutcome) -> Effect | None:
        """Make the outcome of a call durable together with what its tool wrote.

        Returns:
            As `steps.record_outcome`.

        Raises:
            LeaseLost: another attempt owns the run, or may.
            LedgerUnavailable: neither was committed.
        """
        claim, position = self._run.claim, outcome.call.position
        try:
            recording = steps.record_outcome(claim, outcome)
            progress = is_progress(steps.record_outcome)
            return await transaction.commit(recording, progress=progress)
        except LeaseLost:
            self._control.end(Ending.LOST)
            raise
        except LedgerUnavailable:
            # Perhaps while it was being committed: if it was, the call is there.
            effect = await self.write(steps.find_outcome, claim, position)
            if effect is None or effect.state is not outcome.state:
                raise
            return effect


def _begun[T](work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that has begun: it need not wait for its turn to hand its write over."""
    loop = asyncio.get_running_loop()
    return asyncio.Task(work, loop=loop, eager_start=True)


def _heard(write: asyncio.Future[Any]) -> None:
    """Keep asyncio from saying that nobody has looked whether it failed."""
    if not write.cancelled():
        write.exception()


async def _patiently[T](ask: Callable[[], Awaitable[T]], check: Callable[[], None]) -> T:
    """Ask until there is an answer, or until waiting for it is of no use: then `check` raises."""
    tries = 0
    while True:
        try:
            return await ask()
        except LedgerUnavailable:
            check()
            await asyncio.sleep(PAUSE_SECONDS[min(tries, len(PAUSE_SECONDS) - 1)])
            tries += 1


def _ended(run: RunRecord, ending: AttemptOutcome) -> Operation[RunRecord | None]:
    """The run as it is now, if the attempt that it was claimed for ended in this way."""
    attempt = yield from reads.get_attempt(run.claim)
    if attempt is None or attempt.outcome is not ending:
        return None
    return (yield from reads.get_run(run.key))
