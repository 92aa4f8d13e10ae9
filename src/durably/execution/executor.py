"""One attempt from claim to settle: open the journal, perform, settle.

Owns the order and the decision between retry and discard; what performing means is the agents'.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Protocol

from durably import boundaries
from durably.errors import (
    CorruptRecord,
    LeaseLost,
    LedgerClosed,
    LedgerCorrupt,
    LedgerMoved,
    LedgerUnavailable,
    RunNotFound,
    SchemaError,
)
from durably.execution.contained import contained
from durably.execution.control import AttemptControl, Ending
from durably.execution.ends import tell_end
from durably.execution.journal import Journal
from durably.execution.outcome import (
    AttemptEnds,
    Cancelled,
    Completed,
    Discarded,
    Failed,
    HandedBack,
    Lost,
    Outcome,
    Suspended,
)
from durably.ledger import attempts
from durably.ledger.database import Database
from durably.ledger.written import Step
from durably.lifecycle import AttemptOutcome
from durably.records import RunRecord
from durably.retry import RetryPolicy, classify
from durably.wording import traced, worded

log = logging.getLogger(__name__)

_NOT_ITS_FAULT = (
    *(LeaseLost, LedgerUnavailable, LedgerClosed),
    *(LedgerMoved, LedgerCorrupt, SchemaError),
)
"""What an end may meet that says nothing about what was to be written."""

FAILURES: ContextVar[list[Exception] | None] = ContextVar("durably_failures", default=None)
"""Where attempts that are executed in this context put what they failed with; for tests."""

UNWIND_SECONDS = 5.0
"""How long a cancelled attempt may take to unwind before it is settled over its head."""


@dataclass(frozen=True, slots=True)
class AttemptOptions:
    """What an agent's registration says about its attempts."""

    timeout_seconds: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Performer(Protocol):
    """Runs the agent of a run over its journal."""

    def options(self, agent: str) -> AttemptOptions:
        """What is registered for this agent; the defaults for an unknown one."""
        ...

    async def perform(self, journal: Journal) -> Completed:
        """Run the agent to its output.

        Raises:
            AttemptEnds: the attempt ends in another expected way.
            Exception: it failed.
        """
        ...


class Executor:
    """Executes attempts; one per process serves every queue."""

    def __init__(self, ledger: Database, performer: Performer) -> None:
        self._ledger = ledger
        self._performer = performer
        self._unwinding: set[asyncio.Task[Completed]] = set()

    async def execute(self, run: RunRecord, control: AttemptControl) -> RunRecord | None:
        """Perform one claimed attempt and settle it; None if its run was lost to another."""
        options = self._performer.options(run.agent)
        try:
            journal = await Journal.open(self._ledger, run, control)
            outcome = await self._perform(journal, options)
            control.settling = True
            settled = await self._settle(journal, outcome, options)
        except (LeaseLost, RunNotFound) as lost:
            log.warning("attempt %d of run %r stopped: %s", run.attempt, run.key, lost)
            return None
        if settled is not None:
            await self._tell_end(settled)
        return settled

    async def _tell_end(self, run: RunRecord) -> None:
        try:
            await tell_end(self._ledger, run)
        except LedgerUnavailable as error:
            log.warning("the end of run %r is told later: %s", run.key, error)

    async def _perform(self, journal: Journal, options: AttemptOptions) -> Outcome:
        if journal.damage:
            return Failed(CorruptRecord(journal.run.key, journal.damage))
        task = asyncio.create_task(self._contained(journal))
        control = journal.control
        control.attach(task)
        try:
            # Told to end it may still not: a thread cannot be cancelled, and code may ignore it.
            await asyncio.wait(
                {task, control.ended()},
                timeout=options.timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        except asyncio.CancelledError:
            # Whoever runs the worker is leaving without a word: hand back what can be.
            control.end(Ending.GRACE_OVER)
        if not task.done():
            control.end(Ending.TIMED_OUT)  # Unless it is being ended already.
            self._unwinding.add(task)
            task.add_done_callback(self._unwinding.discard)
            if control.ending is not Ending.LOST:
                await asyncio.wait({task}, timeout=UNWIND_SECONDS)
        return _outcome_of(task, control, options)

    async def _contained(self, journal: Journal) -> Completed:
        return await contained(f"Agent {journal.run.agent!r}", self._performer.perform(journal))

    async def _settle(
        self, journal: Journal, outcome: Outcome, options: AttemptOptions
    ) -> RunRecord | None:
        try:
            return await self._write_end(journal, outcome, options)
        except _NOT_ITS_FAULT:
            raise
        except Exception as error:
            # It would be the same the next time, and the run would be tried for ever: it counts.
            log.exception("attempt %d of run %r ends badly", journal.run.attempt, journal.run.key)
            bare = Step(streams=journal.feed is not None)
            return await self._fail(journal, error, options, bare)

    async def _write_end(
        self, journal: Journal, outcome: Outcome, options: AttemptOptions
    ) -> RunRecord | None:
        claim, write, settle = journal.claim, self._ledger.write, journal.settle
        step, ending = journal.remaining_step(), AttemptOutcome
        match outcome:
            case Completed(output, usage, messages, cost):
                step = journal.remaining_step(messages, usage, cost)
                settled = settle(
                    ending.COMPLETED,
                    lambda s: write(attempts.complete, claim, output, s, alone=True),
                    step,
                )
            case Failed(error):
                return await self._fail(journal, error, options, step)
            case Discarded(reason):
                settled = settle(
                    ending.DISCARDED, lambda s: write(attempts.discard, claim, reason, "", s), step
                )
            case Suspended(kind, on):
                settled = settle(
                    ending.SUSPENDED, lambda s: write(attempts.suspend, claim, kind, on, s), step
                )
            case HandedBack():
                settled = settle(
                    ending.HANDED_BACK, lambda s: write(attempts.hand_back, claim, s), step
                )
            case Cancelled():
                settled = settle(ending.CANCELLED, lambda s: write(attempts.stop, claim, s), step)
            case Lost():
                return await self._let_go(journal)
        return await settled

    async def _let_go(self, journal: Journal) -> RunRecord | None:
        """Hand a lost run back, in case that nobody has taken it yet; if one has, it is refused."""
        try:
            step = Step(streams=journal.feed is not None)
            return await self._ledger.write(attempts.hand_back, journal.claim, step)
        except LedgerUnavailable as error:
            # Whoever looks after dead workers' runs finds it, or this worker does when it is back.
            log.warning("run %r is left as it is: %s", journal.run.key, error)
            return None

    async def _fail(
        self, journal: Journal, error: Exception, options: AttemptOptions, step: Step
    ) -> RunRecord:
        run, claim, write = journal.run, journal.claim, self._ledger.write
        if (failures := FAILURES.get()) is not None:
            failures.append(error)
        verdict = classify(error)
        message, text = worded(error), traced(error)
        log.warning("attempt %d of run %r failed: %s", run.attempt, run.key, message)
        if isinstance(error, CorruptRecord):
            events = (*step.events, ("quarantined", {"damage": list(error.damage)}))
            step = replace(step, events=events)
        if verdict.kind == "permanent":
            return await journal.settle(
                AttemptOutcome.DISCARDED,
                lambda s: write(attempts.discard, claim, message, text, s),
                step,
            )
        delay = options.retry.delay(run.failures + 1, random.random)
        if verdict.retry_after_seconds is not None:
            delay = max(delay, verdict.retry_after_seconds)
        return await journal.settle(
            AttemptOutcome.FAILED,
            lambda s: write(attempts.fail, claim, message, text, delay, s),
            step,
        )


def _outcome_of(
    task: asyncio.Task[Completed], control: AttemptControl, options: AttemptOptions
) -> Outcome:
    """What became of the attempt: its own word first, then why it was stopped."""
    error: BaseException | None = None
    if task.done() and not task.cancelled():
        error = task.exception()
        if error is None or isinstance(error, boundaries.Died):
            return task.result()
    if control.ending is Ending.LOST or isinstance(error, LeaseLost):
        return Lost()
    if isinstance(error, AttemptEnds):
        return error.outcome
    match control.ending:
        case Ending.CANCELLED:
            return Cancelled()
        case Ending.GRACE_OVER:
            return HandedBack()
        case Ending.TIMED_OUT:
            return Failed(
                TimeoutError(f"The attempt took longer than {options.timeout_seconds:g} s.")
            )
        case _:
            if isinstance(error, Exception):
                return Failed(error)
            return Failed(RuntimeError("The attempt was cancelled, and nobody said why."))
