"""What one attempt knows of its run, and how it makes each step durable.

Owns positions and the order of writes; what waits for the next one is `unwritten`'s, that one is
made soon `soon`'s, trying again while the database is away `writes`'; writes about one call are
`effects`'. Knows no agent framework: messages and results are JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from durably import boundaries
from durably.budgets import SharedBudget
from durably.execution.control import AttemptControl, Ending
from durably.execution.damage import RESPONSE, damage_of
from durably.execution.effects import Effects
from durably.execution.feed import Feed, Merge
from durably.execution.soon import Soon
from durably.execution.unwritten import Unwritten
from durably.execution.writes import Writes
from durably.ledger import budgets, reads, steps, threads
from durably.ledger.budgets import Sharing
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.ledger.written import CallOutcome, NewMessage, Step
from durably.lifecycle import AttemptOutcome
from durably.records import (
    CallPosition,
    Claim,
    EarlierRun,
    Effect,
    RunInput,
    RunRecord,
    Steer,
    StoredMessage,
)


class Journal:
    """The record of one attempt.

    Attributes:
        run: the run as it was claimed.
        input: what it was asked.
        history: its messages as earlier attempts left them, in order, until they have been read.
        length: how many messages it has by now.
        responses: how many of them are responses.
        last_fingerprint: the agent's fingerprint as the attempt before recorded it.
        effects: what is recorded of the run's calls, and how more is.
        feed: where messages in the making are shown; None: they are not.
        before: what earlier runs of its thread left; positions are the run's own, without it.
        damage: what of all this cannot be read, one sentence each; then the run must not go on.
    """

    def __init__(
        self,
        ledger: Database,
        run: RunRecord,
        control: AttemptControl,
        run_input: RunInput,
        history: Sequence[StoredMessage],
        effects: Sequence[Effect],
        last_fingerprint: str | None,
        before: Sequence[EarlierRun],
    ) -> None:
        self.ledger = ledger
        self.run = run
        self.control = control
        self.input = run_input
        self.history = list(history)
        self.length = len(self.history)
        self.responses = sum(message.kind == RESPONSE for message in history)
        self.last_fingerprint = last_fingerprint
        self.before = before
        self.damage = damage_of(run, run_input, history, effects)
        self.feed: Feed | None = None
        self._writes = Writes(ledger, run, control)
        self.effects = Effects(effects, run.claim, self._writes)
        self._unwritten = Unwritten()
        self._soon = Soon()

    @classmethod
    async def open(cls, ledger: Database, run: RunRecord, control: AttemptControl) -> Journal:
        """Load what earlier attempts made durable.

        Raises:
            LeaseLost: the database was away for longer than the lease.
            RunNotFound: somebody has deleted the run.
        """

        first = run.attempt == 1 and not run.thread
        if first and run.input is not None:
            return cls(ledger, run, control, run.input, *_NOTHING, [])

        def load() -> Operation[tuple[Any, ...]]:
            run_input = run.input or (yield from reads.get_input(run.id, alone=first))
            # Only attempts write these, and this may be the first.
            made = (yield from _made(run)) if run.attempt > 1 else _NOTHING
            before = (yield from threads.list_earlier(run.thread, run.id)) if run.thread else []
            return (run_input, *made, before)

        return cls(ledger, run, control, *(await Writes(ledger, run, control).read(load)))

    @property
    def claim(self) -> Claim:
        """The fencing token that every write carries."""
        return self.run.claim

    @property
    def last_response(self) -> int:
        """The position of the last checkpointed response."""
        return self.length - 1

    def idempotency_key(self, position: CallPosition) -> str:
        """Stable across attempts; derives from the run's key and the call's position only."""
        return f"{self.run.key}:{position.call_id}"

    def show(self, merge: Merge) -> Feed:
        """Show messages while they are made, from now on (see `Feed`)."""
        self.feed = Feed(self.ledger, self.claim, merge)
        return self.feed

    def note(self, kind: str, **data: object) -> None:
        """Add an event to the next write."""
        self._unwritten.note(kind, data)

    def note_fingerprint(self, fingerprint: str) -> None:
        """Record the agent's fingerprint with the next write, if it is news."""
        self._unwritten.note_fingerprint(fingerprint)

    async def steers(self) -> list[Steer]:
        """Messages of the run's thread that it is to see, and has not.

        Raises:
            LeaseLost: the database was away for longer than the lease.
        """
        thread = self.run.thread
        if thread is None:
            return []
        return await self._writes.read(lambda: threads.list_steers(thread, self.run.id))

    async def shared_budgets(self) -> list[SharedBudget]:
        """The budgets that the run shares, as they are now; what it spends is counted there too.

        Raises:
            LeaseLost: the database was away for longer than the lease.
        """
        run = self.run
        if run.thread is None and not run.tags:
            return []
        found = await self._writes.read(lambda: budgets.list_shared_of(run.thread, run.tags))
        self._unwritten.sharing = Sharing.of(found)
        return found

    async def checkpoint(
        self,
        messages: Sequence[tuple[str, str]],
        usage: str,
        cost_nanousd: int | None = None,
        steers: Sequence[Steer] = (),
        model: str | None = None,
    ) -> None:
        """Append messages (kind, JSON): from here on they are never asked for again.

        Args:
            usage, cost_nanousd: what the run has spent so far, over all its attempts.
            steers: what `steers` gave, and the model has seen in these messages.
            model: the one that answered, if these messages hold an answer.

        Raises:
            LeaseLost: another attempt owns the run.
        """
        appended = self.append(messages, steers)
        unwritten = self._unwritten
        unwritten.usage, unwritten.cost_nanousd = usage, cost_nanousd
        unwritten.model = model or unwritten.model
        if self.feed is not None:
            self.feed.drop()
        boundaries.reached("checkpoint:before")
        await self._write_step(messages=appended)
        boundaries.reached("checkpoint:after")

    def append(
        self, messages: Sequence[tuple[str, str]], steers: Sequence[Steer] = ()
    ) -> tuple[NewMessage, ...]:
        """Number messages as the next of the history; the caller makes them durable."""
        new = tuple(
            NewMessage(self.length + i, kind, body, tuple(steers) if i == 0 else ())
            for i, (kind, body) in enumerate(messages)
        )
        self.length += len(new)
        self.responses += sum(message.kind == RESPONSE for message in new)
        return new

    def keep(self, outcome: CallOutcome, *, soon: bool = False) -> None:
        """Let an outcome ride along with the next write.

        Args:
            soon: if there is none in a moment, write it then, without waiting for it.
        """
        self._unwritten.keep(outcome)
        if soon:
            self._soon.ask(self._flush)

    def remaining_step(
        self,
        messages: tuple[NewMessage, ...] = (),
        usage: str | None = None,
        cost_nanousd: int | None = None,
    ) -> Step:
        """Everything that waits for the next write, for the transition that ends the attempt."""
        return self._unwritten.step(messages, usage, cost_nanousd, streams=self.feed is not None)

    async def settle(
        self, ending: AttemptOutcome, transition: Callable[[Step], Awaitable[RunRecord]], step: Step
    ) -> RunRecord:
        """Write the transition that ends the attempt (see `Writes.settle`)."""
        await self._soon.finish()
        if step.outcomes != (outcomes := self._unwritten.outcomes):
            step = replace(step, outcomes=outcomes)
        if self.feed is not None:
            self.feed.end()
        boundaries.reached("settle:before")
        run = await self._writes.settle(ending, lambda: transition(step))
        boundaries.reached("settle:after")
        return run

    async def write(self) -> None:
        """Make everything that waits durable now, if anything does."""
        if self._unwritten.is_news:
            await self._write_step()

    async def _flush(self) -> None:
        if self._unwritten.outcomes and self.control.ending is not Ending.LOST:
            await self._write_next()

    async def _write_step(self, messages: tuple[NewMessage, ...] = ()) -> None:
        await self._soon.finish()
        await self._write_next(messages)

    async def _write_next(self, messages: tuple[NewMessage, ...] = ()) -> None:
        told: tuple[tuple[str, dict[str, object]], ...] = ()
        if messages:
            # In this write or in none: it says that the messages are there.
            told = (("step", {"messages": [message.seq for message in messages]}),)
        step = self._unwritten.step(messages, streams=self.feed is not None, events=told)

        async def write() -> None:
            await self.ledger.write(steps.record_step, self.claim, step, alone=True)
            # Here, so that it is also done if the attempt is cancelled while this is committed.
            self._unwritten.forget(step)

        await self._writes.persist(write)


type _Made = tuple[list[StoredMessage], list[Effect], str | None]

_NOTHING: _Made = ([], [], None)


def _made(run: RunRecord) -> Operation[_Made]:
    """What earlier attempts made durable: history, effects, the agent's fingerprint."""
    return (
        (yield from reads.list_messages(run.id)),
        (yield from reads.list_effects(run.id)),
        (yield from reads.last_fingerprint(run.id, run.attempt)),
    )
