"""A handle on one run: what it is doing, waiting for it, watching it, deciding about it.

Owns nothing but the key; every answer is read from the ledger when it is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from durably import agents
from durably.deciding import DecidableRun
from durably.errors import (
    CorruptRecord,
    HistoryError,
    LedgerUnavailable,
    RunCancelled,
    RunDiscarded,
    RunSuspended,
    TransitionRefused,
)
from durably.ledger import children, reads, waits
from durably.ledger.operations import Operation
from durably.lifecycle import RunState
from durably.lookout import Lookout
from durably.records import (
    Attempt,
    Cost,
    Decision,
    Effect,
    Event,
    RunInput,
    RunRecord,
    Signal,
    StoredMessage,
    Timeline,
    TimelineStep,
)
from durably.timeline import timeline_of
from durably.waiting import described_waiting

if TYPE_CHECKING:
    from durably.agents.history import ModelMessage

WAIT_SECONDS = 2.0
"""How often a waiter looks although nothing was committed; a net under the notices."""

LAST_POSITION = 2**31 - 1
"""Above that of any message."""

LOOK_SECONDS = 0.05
"""The least time from one look of a watcher to the next."""

EVENT_PAGE = 500
"""How many events one read brings."""


class Run[OutputT](DecidableRun):
    """One run, by its key.

    Attributes:
        record: the run as it was when this handle last looked (`refresh` looks again).
        created: True if the `enqueue` that returned this handle stored the run; False if it was
            there already.
    """

    created = False

    async def result(self, *, timeout: float | None = None, wait_suspended: bool = True) -> OutputT:
        """Wait for the run's output.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.
            wait_suspended: False raises as soon as the run waits for a decision; waiting for
                other runs of its thread is none.

        Returns:
            The output, of the agent's output type where this process knows the agent.

        Raises:
            TimeoutError: the time is over; the run goes on.
            RunDiscarded, RunCancelled: it ended without an output; the message says why.
            RunSuspended: with ``wait_suspended=False``.
        """
        async with asyncio.timeout(timeout):
            known: reads.Standing | None = None
            while True:
                await Lookout.over(self._ledger).stopped(
                    self.record.id, suspended=not wait_suspended, known=known
                )
                await self._patiently(self.refresh)
                asks = self.state is RunState.SUSPENDED and not self.record.in_line
                if asks and not wait_suspended:
                    raise RunSuspended(self.key, self.describe_waiting())
                if self.state.final:
                    return self.output()
                known = self._standing

    @property
    def _standing(self) -> reads.Standing:
        kind = (self.record.waiting_on or {}).get("kind")
        return reads.Standing(self.state, kind)

    def output(self) -> OutputT:
        """The output of a run that is known to be final.

        Raises:
            RunDiscarded, RunCancelled: it ended without one.
            TransitionRefused: it is not final.
        """
        record = self.record
        match record.state:
            case RunState.COMPLETED:
                registration = self._registry.find(record.agent)
                if registration is None:
                    return cast("OutputT", self._output(agents.exact.parse_json))
                kind = registration.output_type
                value = self._output(lambda text: agents.codec.decode_output(text, kind))
                return cast("OutputT", value)
            case RunState.DISCARDED:
                raise RunDiscarded(self.key, f"Run {self.key!r} was discarded: {record.error}")
            case RunState.CANCELLED:
                raise RunCancelled(self.key, f"Run {self.key!r} was cancelled.")
            case _:
                raise TransitionRefused(f"Run {self.key!r} is {record.state}: no output yet.")

    async def watch(self, after: int = 0, *, deltas: bool = True) -> AsyncGenerator[Event]:
        """The run's events in order, live until it is final, from any process.

        Those of a run that streams hold ``delta`` events: pieces of a message in the making, of
        which a `durably.Draft` makes parts. They are gone once a ``step`` says that the message is
        there, or ``withdrawn`` that it will not come.

        Args:
            after: the id of the last event already seen: nothing is missed, nothing comes twice;
                but for deltas whose message has come meanwhile: then there is its step.
            deltas: False leaves them out.
        """
        with self._notices() as changed:
            while True:
                changed.clear()
                looked_at = time.monotonic()
                events = await self._patiently(self._look, after, deltas)
                final = self.state.final and len(events) < EVENT_PAGE
                for event in events:
                    after = event.id
                    yield event
                if final:
                    return
                if len(events) < EVENT_PAGE:
                    await _wait(changed, looked_at + LOOK_SECONDS)

    async def cursor(self) -> int:
        """From where `watch` tells all of what is in the making now; before it are only facts."""
        return await self._ledger.read(reads.newest_end, self.record.id)

    async def events(self, after: int = 0, *, deltas: bool = True) -> list[Event]:
        """The run's events so far.

        Args:
            after: the id of the last event already seen.
            deltas: False leaves out pieces of a message in the making.
        """
        found: list[Event] = []
        while page := await self._events_after(after, deltas):
            found += page
            after = page[-1].id
        return found

    async def history(self) -> list[ModelMessage]:
        """The checkpointed messages, as pydantic-ai's own."""
        rows = await self._ledger.read(reads.list_messages, self.record.id)
        return [self._message(row) for row in rows]

    def _message(self, row: StoredMessage) -> ModelMessage:
        try:
            return agents.history.message_from_json(row.body)
        except HistoryError as error:
            said = f"durably_messages.body of message {row.seq}: {error}".rstrip(".")
            raise CorruptRecord(self.key, [said]) from error

    def _output(self, read: Callable[[str], object]) -> object:
        try:
            return read(self.record.output or "null")
        except HistoryError as error:
            said = f"durably_runs.output: {error}".rstrip(".")
            raise CorruptRecord(self.key, [said]) from error

    async def messages(self, after: int = -1) -> list[StoredMessage]:
        """The checkpointed messages as they are stored: JSON, and when each was written.

        Args:
            after: the position of the last message already seen.
        """
        return await self._ledger.read(reads.list_messages, self.record.id, after)

    async def last_messages(self, limit: int, before: int = LAST_POSITION) -> list[StoredMessage]:
        """The last of its messages, first to last, as `messages` has them.

        Args:
            limit: how many at most.
            before: only those ahead of this position.
        """
        return await self._ledger.read(reads.list_last_messages, self.record.id, limit, before)

    async def cost(self) -> Cost:
        """What its model requests cost, as far as the application or pydantic-ai knows."""
        prices = agents.pricing.Prices(self._registry.prices)
        return agents.pricing.cost_of(await self.messages(), prices)

    async def timeline(self) -> Timeline:
        """What it did when: attempts, model requests and their calls, waits; and what was saved.

        Of a long run, too: one read, and as much work for each step.
        """
        run, attempts, messages, effects, decided = await self._ledger.read(_recorded, self.key)
        self.record = run
        prices = agents.pricing.Prices(self._registry.prices)
        answers = agents.answers.answers_of(messages, prices)
        return timeline_of(run, attempts, answers, effects, decided)

    async def steps(self) -> list[TimelineStep]:
        """Its answered model requests, each with its tokens, cost, time and calls."""
        return (await self.timeline()).steps

    async def effects(self) -> list[Effect]:
        """The tool calls that the ledger knows of."""
        return await self._ledger.read(reads.list_effects, self.record.id)

    async def attempts(self) -> list[Attempt]:
        """The attempts so far."""
        return await self._ledger.read(reads.list_attempts, self.record.id)

    async def input(self) -> RunInput:
        """What it was asked: the prompt as JSON, and the args."""
        return await self._ledger.read(reads.get_input, self.record.id)

    async def prompt(self) -> Any:
        """What it was asked, as it was given to ``enqueue``."""
        return agents.codec.decode_prompt((await self.input()).prompt)

    async def decisions(self) -> list[Decision]:
        """Who decided what about its calls, when and why."""
        return await self._ledger.read(reads.list_decisions, self.record.id)

    async def signals(self) -> list[Signal]:
        """What was sent to it, and which wait took it."""
        return await self._ledger.read(waits.list_signals, self.record.id)

    async def path(self) -> list[str]:
        """The keys of the runs that started it, outermost first, and its own."""
        return await self._ledger.read(reads.path_to, self.record.id)

    async def children(self) -> list[Run[Any]]:
        """The runs that its tools started, first to last."""
        found = await self._ledger.read(children.list_all, self.record.id)
        return [Run(self._ledger, self._registry, record) for record in found]

    def describe_waiting(self) -> str:
        """What a suspended run waits for, and how to let it go on; one sentence."""
        return described_waiting(self.record)

    @contextmanager
    def _notices(self) -> Generator[asyncio.Event]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        with self._ledger.subscribe(wake, progress=True):
            yield changed

    async def _look(self, after: int, deltas: bool) -> list[Event]:
        self.record, events = await self._ledger.read(
            reads.look, self.key, after, EVENT_PAGE, live=deltas
        )
        return events

    async def _events_after(self, after: int, deltas: bool) -> list[Event]:
        return await self._ledger.read(
            reads.list_events, self.record.id, after, EVENT_PAGE, live=deltas
        )

    async def _patiently[**P, T](
        self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Whoever waits for a run waits for the database as well."""
        while True:
            try:
                return await ask(*args, **kwargs)
            except LedgerUnavailable:
                await asyncio.sleep(WAIT_SECONDS)


def _recorded(
    key: str,
) -> Operation[tuple[RunRecord, list[Attempt], list[StoredMessage], list[Effect], list[Decision]]]:
    run = yield from reads.get_run(key)
    return (
        run,
        (yield from reads.list_attempts(run.id)),
        (yield from reads.list_messages(run.id)),
        (yield from reads.list_effects(run.id)),
        (yield from reads.list_decisions(run.id)),
    )


async def _wait(changed: asyncio.Event, not_before: float) -> None:
    """Wait until something was committed; what is, before that time, is looked at together."""
    try:
        await asyncio.wait_for(changed.wait(), timeout=WAIT_SECONDS)
    except TimeoutError:
        return
    await asyncio.sleep(max(0.0, not_before - time.monotonic()))
