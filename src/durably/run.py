"""A handle on one run: what it is doing, waiting for it, watching it, deciding about it.

Owns nothing but the key; every answer is read from the ledger when it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from durably import agents, replies
from durably.agents.registry import Registry
from durably.budgets import NO_LIMIT, Budget, Spent, UsedUp, limits_json, spent_of
from durably.errors import (
    ConfigError,
    LedgerUnavailable,
    RunCancelled,
    RunDiscarded,
    RunNotFound,
    RunSuspended,
    TransitionRefused,
)
from durably.execution.ends import tell_end
from durably.ledger import budgets, children, decisions, reads, runs, waits
from durably.ledger.database import Database
from durably.lifecycle import EffectState, RunState, allowed
from durably.prices import Dollars
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
)

if TYPE_CHECKING:
    from durably.agents.history import ModelMessage

WAIT_SECONDS = 2.0
"""How often a waiter looks although nothing was committed; a net under the notices."""

EVENT_PAGE = 500
"""How many events one read brings."""

OPERATOR = "operator"
"""Who a decision is put down to when the caller does not say."""


class Run[OutputT]:
    """One run, by its key.

    Attributes:
        record: the run as it was when this handle last looked (`refresh` looks again).
    """

    def __init__(self, ledger: Database, registry: Registry, record: RunRecord) -> None:
        self._ledger = ledger
        self._registry = registry
        self.record = record

    def __repr__(self) -> str:
        return f"<Run {self.key!r} {self.state}>"

    @property
    def key(self) -> str:
        """The unique key."""
        return self.record.key

    @property
    def state(self) -> RunState:
        """The state when this handle last looked."""
        return self.record.state

    async def refresh(self) -> Run[OutputT]:
        """Look again; returns this handle."""
        self.record = await self._ledger.read(reads.get_run, self.key)
        return self

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
            with self._notices() as changed:
                while True:
                    changed.clear()
                    await self._patiently(self.refresh)
                    asks = self.state is RunState.SUSPENDED and not self.record.in_line
                    if asks and not wait_suspended:
                        raise RunSuspended(self.key, self.describe_waiting())
                    if self.state.final:
                        return self.output()
                    await _wait(changed)

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
                    return cast("OutputT", json.loads(record.output or "null"))
                value = agents.codec.decode_output(
                    record.output or "null", registration.output_type
                )
                return cast("OutputT", value)
            case RunState.DISCARDED:
                raise RunDiscarded(self.key, f"Run {self.key!r} was discarded: {record.error}")
            case RunState.CANCELLED:
                raise RunCancelled(self.key, f"Run {self.key!r} was cancelled.")
            case _:
                raise TransitionRefused(f"Run {self.key!r} is {record.state}: no output yet.")

    async def watch(self, after: int = 0) -> AsyncGenerator[Event]:
        """The run's events in order, live until it is final, from any process.

        Args:
            after: the id of the last event already seen: nothing is missed, nothing comes twice.
        """
        with self._notices() as changed:
            while True:
                changed.clear()
                await self._patiently(self.refresh)
                final = self.state.final
                while events := await self._patiently(self._events_after, after):
                    for event in events:
                        after = event.id
                        yield event
                if final:
                    return
                await _wait(changed)

    async def events(self, after: int = 0) -> list[Event]:
        """The run's events so far."""
        found: list[Event] = []
        while page := await self._events_after(after):
            found += page
            after = page[-1].id
        return found

    async def history(self) -> list[ModelMessage]:
        """The checkpointed messages, as pydantic-ai's own."""
        rows = await self._ledger.read(reads.list_messages, self.record.id)
        return [agents.history.message_from_json(row.body, f"message {row.seq}") for row in rows]

    async def messages(self, after: int = -1) -> list[StoredMessage]:
        """The checkpointed messages as they are stored: JSON, and when each was written.

        Args:
            after: the position of the last message already seen.
        """
        return await self._ledger.read(reads.list_messages, self.record.id, after)

    async def cost(self) -> Cost:
        """What its model requests cost, as far as the application or pydantic-ai knows."""
        prices = agents.pricing.Prices(self._registry.prices)
        return agents.pricing.cost_of(await self.messages(), prices)

    @property
    def budget(self) -> Budget:
        """What it may spend: its own limits and, where it has none, its agent's.

        Where this process does not know the agent, its own alone.
        """
        registration = self._registry.find(self.record.agent)
        declared = registration.budget if registration else NO_LIMIT
        return declared.overlaid(self.record.budget)

    @property
    def spent(self) -> Spent:
        """What it has spent so far, over all its attempts, at its last checkpoint."""
        return spent_of(self.record.usage, self.record.cost_nanousd)

    async def raise_budget(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        tool_calls: int | None = None,
        usd: Dollars | None = None,
        by: str = OPERATOR,
        note: str = "",
    ) -> Run[OutputT]:
        """Set limits of its own budget; those that are not given stay.

        It goes on if it waits for one of them. An attempt under way learns of it once it reaches
        the limit that it knows.

        Args:
            requests, tokens, tool_calls, usd: the new limits, of what it spends altogether.
            note: why; kept with the decision.

        Raises:
            ConfigError: none is given, or one is no number.
            TransitionRefused: it is final, or waits for a limit that would still be used up.
        """
        given = Budget(requests=requests, tokens=tokens, tool_calls=tool_calls, usd=usd)
        if not given.limited:
            raise ConfigError("raise_budget() takes requests=, tokens=, tool_calls= or usd=.")
        self.record = await self._ledger.write(
            budgets.raise_own, self.key, limits_json(given), by, note
        )
        return self

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

    async def cancel(self, *, by: str = OPERATOR) -> Run[OutputT]:
        """Cancel it; an executing attempt stops within a second.

        Raises:
            TransitionRefused: it is final already.
        """
        self.record = await self._ledger.write(runs.cancel, self.key, by)
        await tell_end(self._ledger, self.record)
        return self

    async def retry(self, *, by: str = OPERATOR) -> Run[OutputT]:
        """Let a discarded or cancelled run go on where it was, or accept a changed agent.

        Children that were cancelled with it, and that it still waits for, go on as well. A run of a
        thread may have to wait for its turn. One that waits for a budget looks at it again: its
        agent's may be another by now.

        Raises:
            TransitionRefused: it is neither, nor suspended because its agent changed, or for a
                budget; or later runs of its thread have begun.
        """
        await self.refresh()
        woken = (self.record.waiting_on or {}).get("kind") in ("change", "budget")
        transition = runs.wake if self.state is RunState.SUSPENDED and woken else runs.revive
        if allowed("revive", self.state):
            # Before the parent, which would take them for ended otherwise.
            for child in await self._ledger.read(children.list_waited_for, self.record.id):
                with contextlib.suppress(TransitionRefused, RunNotFound):
                    await self._ledger.write(runs.revive, child.key, children.BY_PARENT)
        self.record = await self._ledger.write(transition, self.key, by)
        return self

    async def resolve(
        self,
        call_id: str,
        *,
        done: Any = ...,
        failed: str | None = None,
        again: bool = False,
        by: str = OPERATOR,
        note: str = "",
    ) -> Run[OutputT]:
        """Settle a call that is in doubt, or that awaits an answer.

        Exactly one of:

        Args:
            done: it happened, and this is its result.
            failed: it did not work, and this is what the model is told.
            again: it did not happen: run it again.

        Raises:
            ConfigError: none, or more than one, of the three is given.
            EffectNotFound: the run has no such call.
            TransitionRefused: the call is settled, or the run is final.
        """
        given = [done is not ..., failed is not None, again]
        if sum(given) != 1:
            raise ConfigError("resolve() takes exactly one of done=, failed= and again=True.")
        state, result = _decision(call_id, done, failed)
        self.record = await self._ledger.write(
            decisions.resolve, self.key, call_id, state, result, failed, by, note
        )
        return self

    async def approve(
        self,
        call_id: str,
        *,
        args: Mapping[str, Any] | None = None,
        expected: Mapping[str, Any] | None = None,
        by: str = OPERATOR,
        note: str = "",
    ) -> Run[OutputT]:
        """Let a call run that waits for approval.

        Args:
            args: run it with these arguments instead of those that the model gave.
            expected: the arguments that the decision is about: refused if they are others by now.
            note: why; kept with the decision.

        Raises:
            ConfigError: the tool does not take the arguments.
            EffectNotFound: the run has no such call.
            TransitionRefused: the call waits for no approval, somebody was faster, or the run is
                final; the message says which.
        """
        effect = await self._asked(call_id)
        edited = None if args is None else replies.edited_args(effect, args)
        seen = None
        if expected is not None:
            same = json.loads(effect.args or "{}") == dict(expected)
            seen = effect.args if same else json.dumps(dict(expected))
        self.record = await self._ledger.write(
            decisions.approve, self.key, effect.call_id, edited, seen, by, note
        )
        return self

    async def deny(
        self, call_id: str, *, reason: str = "It was denied.", by: str = OPERATOR
    ) -> Run[OutputT]:
        """Keep a call from running that waits for a person; the model reads the reason.

        Raises:
            EffectNotFound, TransitionRefused: as for `approve`.
        """
        self.record = await self._ledger.write(
            decisions.decide,
            self.key,
            call_id,
            "denied",
            EffectState.DENIED,
            decisions.denial(reason),
            None,
            by,
            reason,
        )
        return self

    async def answer(
        self, call_id: str, value: Any, *, by: str = OPERATOR, note: str = ""
    ) -> Run[OutputT]:
        """Answer a question, or in the place of a call that nobody here can make.

        Raises:
            ConfigError: it is none of the choices, or not what the form asks for.
            EffectNotFound, TransitionRefused: as for `approve`.
        """
        effect = await self._asked(call_id)
        checked = replies.checked_answer(effect, value)
        result = agents.recorded.returned(effect.tool_name, checked)
        self.record = await self._ledger.write(
            decisions.decide,
            self.key,
            effect.call_id,
            "answered",
            EffectState.DONE,
            result,
            None,
            by,
            note,
        )
        return self

    async def decisions(self) -> list[Decision]:
        """Who decided what about its calls, when and why."""
        return await self._ledger.read(reads.list_decisions, self.record.id)

    async def signals(self) -> list[Signal]:
        """What was sent to it, and which wait took it."""
        return await self._ledger.read(waits.list_signals, self.record.id)

    async def children(self) -> list[Run[Any]]:
        """The runs that its tools started, first to last."""
        found = await self._ledger.read(children.list_all, self.record.id)
        return [Run(self._ledger, self._registry, record) for record in found]

    async def _asked(self, call_id: str) -> Effect:
        return await self._ledger.read(decisions.find, self.key, call_id)

    def describe_waiting(self) -> str:
        """What a suspended run waits for, and how to let it go on; one sentence."""
        waiting = self.record.waiting_on or {}
        if self.record.in_line:
            return self._describe_line(waiting)
        if waiting.get("kind") == "change":
            return (
                f"Run {self.key!r} waits because its agent changed: `durably retry {self.key}` "
                "lets it go on with the agent as it is now."
            )
        others = " and ".join(_described_wait(wait) for wait in waiting.get("waits", []))
        if waiting.get("kind") == "waits":
            return f"Run {self.key!r} waits {others}."
        if waiting.get("kind") == "budget":
            used = UsedUp.from_json(waiting)
            return (
                f"Run {self.key!r} waits because {used.whose()} is used up, {used.describe()}: "
                f"`durably {used.command()}` lets it go on, `durably cancel {self.key}` ends it."
            )
        calls = ", ".join(waiting.get("effects", [])) or "a decision"
        also = f" and {others}" if others else ""
        return (
            f"Run {self.key!r} waits for a decision on {calls}{also}: see `durably inbox`, then "
            f"`durably approve`, `deny`, `answer` or `resolve` {self.key} CALL_ID."
        )

    def _describe_line(self, waiting: Mapping[str, str]) -> str:
        thread = f"thread {self.record.thread!r}"
        match waiting["kind"]:
            case "steered":
                return (
                    f"Run {self.key!r} has steered run {waiting['steers']!r} of {thread}, and ends "
                    "as that does."
                )
            case "steer":
                return (
                    f"Run {self.key!r} waits in {thread} for the run that is going to see its "
                    f"message, or for its turn, after run {waiting['after']!r}."
                )
            case _:
                return (
                    f"Run {self.key!r} waits for its turn in {thread}, after run "
                    f"{waiting['after']!r}."
                )

    @contextmanager
    def _notices(self) -> Generator[asyncio.Event]:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(changed.set)

        with self._ledger.subscribe(wake):
            yield changed

    async def _events_after(self, after: int) -> list[Event]:
        return await self._ledger.read(reads.list_events, self.record.id, after, EVENT_PAGE)

    async def _patiently[**P, T](
        self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Whoever waits for a run waits for the database as well."""
        while True:
            try:
                return await ask(*args, **kwargs)
            except LedgerUnavailable:
                await asyncio.sleep(WAIT_SECONDS)


def _decision(call_id: str, done: Any, reason: str | None) -> tuple[EffectState | None, str | None]:
    if done is not ...:
        return EffectState.DONE, agents.recorded.returned(call_id, done)
    if reason is not None:
        return EffectState.FAILED, agents.recorded.failed(reason)
    return None, None


def _described_wait(wait: Mapping[str, Any]) -> str:
    until = f" until {wait['until']}" if "until" in wait else ""
    match wait["for"]:
        case "signal":
            return f"for the signal {wait['name']!r}{until}"
        case "child":
            return f"for run {wait['name']!r}"
        case _:
            return until.strip()


async def _wait(changed: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(changed.wait(), timeout=WAIT_SECONDS)
    except TimeoutError:
        return
