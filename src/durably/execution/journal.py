"""What one attempt knows of its run, and how it makes each step durable.

Owns positions and the order of writes; what waits for the next one is `unwritten`'s, that one is
made soon `soon`'s, trying again while the database is away `writes`'. Knows no agent framework:
messages and results are JSON.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from durably import boundaries
from durably.budgets import SharedBudget
from durably.errors import LeaseLost
from durably.execution.control import AttemptControl, Ending
from durably.execution.damage import RESPONSE, damage_of
from durably.execution.feed import Feed, Merge
from durably.execution.known import KnownCalls
from durably.execution.soon import Soon
from durably.execution.unwritten import Unwritten
from durably.execution.writes import Writes
from durably.ledger import budgets, children, evidence, reads, steps, threads, waits
from durably.ledger.budgets import Sharing
from durably.ledger.database import Database, ToolTransaction
from durably.ledger.operations import Operation
from durably.ledger.waits import Wait
from durably.ledger.written import CallOutcome, NewMessage, Step, ToolCall
from durably.lifecycle import AttemptOutcome
from durably.records import (
    CallPosition,
    Claim,
    EarlierRun,
    Effect,
    NewRun,
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
        self._calls = KnownCalls(effects, run.claim)
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

    def effect(self, position: CallPosition) -> Effect | None:
        """What is recorded of a call; None if nothing is."""
        return self._calls.find(position)

    @property
    def effects(self) -> list[Effect]:
        """What is recorded of all calls."""
        return list(self._calls)

    def effects_inside(self, position: CallPosition) -> list[Effect]:
        """What is recorded of the steps and waits inside a call."""
        return self._calls.inside(position)

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

    async def begin(self, call: ToolCall) -> Effect:
        """Make the intent of a call durable before it runs.

        Raises:
            LeaseLost: another attempt owns the run; the call must not start.
        """
        boundaries.reached("intent:before", call.tool_name)
        instead = await self._writes.write(steps.record_intent, self.claim, call)
        boundaries.reached("intent:after", call.tool_name)
        return self._calls.begun(call) if instead is None else self._calls.put(instead)

    async def finish(self, outcome: CallOutcome) -> Effect:
        """Make the outcome of a call durable now; returns what the ledger holds.

        That is somebody else's word where late evidence or a person came first.
        """
        boundaries.reached("outcome:before", outcome.call.tool_name)
        instead = await self._writes.write(steps.record_outcome, self.claim, outcome)
        boundaries.reached("outcome:after", outcome.call.tool_name)
        return self._told(outcome, instead)

    def _told(self, outcome: CallOutcome, instead: Effect | None) -> Effect:
        return self._calls.ended(outcome) if instead is None else self._calls.put(instead)

    async def wait(self, call: ToolCall, wait: Wait) -> Effect:
        """Make it durable that a call waits for a time or a signal, or find out that it is over.

        Raises:
            LeaseLost: another attempt owns the run.
        """
        boundaries.reached("wait:before", call.tool_name)
        effect = await self._writes.write(waits.begin, self.claim, call, wait)
        boundaries.reached("wait:after", call.tool_name)
        return self._calls.put(effect)

    async def start_child(self, call: ToolCall, new: NewRun) -> Effect:
        """Start a child of this run and wait for it, or find out how it ended.

        Raises:
            LeaseLost: another attempt owns the run; no child was started.
            KeyConflict: its key is another run's.
        """
        boundaries.reached("child:before", call.tool_name)
        effect = await self._writes.write(children.begin, self.claim, call, new)
        boundaries.reached("child:after", call.tool_name)
        return self._calls.put(effect)

    async def commit(self, transaction: ToolTransaction, outcome: CallOutcome) -> None:
        """Make the outcome of a call durable together with what its tool wrote.

        Raises:
            LeaseLost: another attempt owns the run; neither was committed.
            LedgerUnavailable: neither was committed.
        """
        self._told(outcome, await self._writes.commit(transaction, outcome))

    async def doubt(self, outcome: CallOutcome) -> Effect | None:
        """Make it durable that a call is asked about, or that the model was told of it.

        Returns:
            What the ledger holds: somebody else's word where that came first; None if the call
            was withdrawn meanwhile, because it certainly did not happen.
        """
        boundaries.reached("outcome:before", outcome.call.tool_name)
        effect = await self._writes.write(steps.record_doubt, self.claim, outcome)
        boundaries.reached("outcome:after", outcome.call.tool_name)
        if effect is None:
            self._calls.forget(outcome.call.position)
        else:
            self._calls.put(effect)
        return effect

    def keep(self, outcome: CallOutcome, *, soon: bool = False) -> None:
        """Let an outcome ride along with the next write.

        Args:
            soon: if there is none in a moment, write it then, without waiting for it.
        """
        self._unwritten.keep(outcome)
        if soon:
            self._soon.ask(self._flush)

    async def withdraw(self, call: ToolCall, reason: str) -> None:
        """Forget an intent: the call certainly did not happen."""
        withdrawn = False
        with contextlib.suppress(LeaseLost):
            withdrawn = await self._writes.write(evidence.withdraw_intent, self.claim, call, reason)
        if not withdrawn:
            # The run is not this attempt's any more: nobody need be asked about the call.
            await self._writes.write_late(evidence.withdraw_late, self.claim, call, reason)
        self._calls.forget(call.position)

    async def settle_late(self, outcome: CallOutcome) -> Effect | None:
        """Report how a call ended to a run that is not this attempt's any more.

        However long the database is away: that may be why the run was lost.
        """
        return await self._writes.write_late(evidence.settle_late, self.claim, outcome)

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
