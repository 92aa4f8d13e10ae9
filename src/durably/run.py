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

from durably import agents, boundaries, replies
from durably.agents.registry import Registry
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
from durably.ledger import children, decisions, reads, runs, waits
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.lifecycle import EffectState, RunState, allowed
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
            wait_suspended: False raises as soon as the run waits for a decision.

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
                    if self.state is RunState.SUSPENDED and not wait_suspended:
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
        """What its model requests cost, as far as pydantic-ai knows the prices."""
        return agents.pricing.cost_of(await self.messages())

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
        await self._decide(runs.cancel, self.key, by)
        await tell_end(self._ledger, self.record)
        return self

    async def retry(self, *, by: str = OPERATOR) -> Run[OutputT]:
        """Let a discarded or cancelled run go on where it was, or accept a changed agent.

        Children that were cancelled with it, and that it still waits for, go on as well.

        Raises:
            TransitionRefused: it is neither, nor suspended because its agent changed.
        """
        await self.refresh()
        changed = (self.record.waiting_on or {}).get("kind") == "change"
        transition = runs.wake if self.state is RunState.SUSPENDED and changed else runs.revive
        if allowed("revive", self.state):
            # Before the parent, which would take them for ended otherwise.
            for child in await self._ledger.read(children.list_waited_for, self.record.id):
                with contextlib.suppress(TransitionRefused, RunNotFound):
                    await self._ledger.write(runs.revive, child.key, children.BY_PARENT)
        await self._decide(transition, self.key, by)
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
        await self._decide(decisions.resolve, self.key, call_id, state, result, failed, by, note)
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
        await self._decide(decisions.approve, self.key, effect.call_id, edited, seen, by, note)
        return self

    async def deny(
        self, call_id: str, *, reason: str = "It was denied.", by: str = OPERATOR
    ) -> Run[OutputT]:
        """Keep a call from running that waits for a person; the model reads the reason.

        Raises:
            EffectNotFound, TransitionRefused: as for `approve`.
        """
        await self._decide(
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
        await self._decide(
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

    async def _decide[**P](
        self, operation: Callable[P, Operation[RunRecord]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        boundaries.reached("decision:before")
        self.record = await self._ledger.write(operation, *args, **kwargs)
        boundaries.reached("decision:after")

    async def _asked(self, call_id: str) -> Effect:
        return await self._ledger.read(decisions.find, self.key, call_id)

    def describe_waiting(self) -> str:
        """What a suspended run waits for, and how to let it go on; one sentence."""
        waiting = self.record.waiting_on or {}
        if waiting.get("kind") == "change":
            return (
                f"Run {self.key!r} waits because its agent changed: `durably retry {self.key}` "
                "lets it go on with the agent as it is now."
            )
        others = " and ".join(_described_wait(wait) for wait in waiting.get("waits", []))
        if waiting.get("kind") == "waits":
            return f"Run {self.key!r} waits {others}."
        calls = ", ".join(waiting.get("effects", [])) or "a decision"
        also = f" and {others}" if others else ""
        return (
            f"Run {self.key!r} waits for a decision on {calls}{also}: see `durably inbox`, then "
            f"`durably approve`, `deny`, `answer` or `resolve` {self.key} CALL_ID."
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
