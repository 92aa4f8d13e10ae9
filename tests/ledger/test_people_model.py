"""People, clocks, signals, children, workers and crashes against each other, in whatever order.

Beside `test_model`, which compares every step with a model of attempts: this one looks after each
step whether somebody could be left asleep, decided about twice, woken early, or told nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from durably.errors import DurablyError, LeaseLost, TransitionRefused
from durably.execution.ends import tell_end, tell_ends
from durably.ledger import (
    attempts,
    children,
    decisions,
    ends,
    evidence,
    expiry,
    runs,
    steps,
    waits,
    workers,
)
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.ledger.waits import Wait
from durably.ledger.written import Ask, CallOutcome, Step, ToolCall
from durably.lifecycle import EffectState, RunState
from durably.records import WAIT_KINDS, CallPosition, Claim, Decision, Effect, RunRecord
from support.ledgers import Clock, PostgresBackend, SqliteBackend, new_run
from support.people import ASKED, Place, Promises, RunView, look
from support.postgres import wipe
from support.sample import examples

LEASE_SECONDS = 10.0
FAIL_SECONDS = 2.0
MANY_ROUNDS = 60
"""In so many rounds of everybody doing their part, every run ends."""

RETURNED = '{"return":{"return_value":"x"}}'

ACTED = [CallPosition(1, 3), CallPosition(1, 0, "charge")]

picks = st.integers(0, 1000)
seconds = st.sampled_from([0.0, 3.0, 8.0])
people = st.sampled_from(["ann", "bob"])
worker_ids = st.sampled_from(["w1", "w2"])
tells = st.sampled_from(["nobody", "parent", "all"])
"""Whom somebody who ends a run lives to tell."""

MEANWHILE = ["nothing", "nothing", "people", "clock", "signals"]
leaves = st.sampled_from([None, None, None, *MEANWHILE])
"""Whether an attempt suspends its run right after this, and what happens at that moment."""


@dataclass
class Going:
    """One attempt, as its worker knows it: also long after it is over.

    Attributes:
        asked: calls that it asked people about.
        waits: waits that were not over when it came to them.
    """

    claim: Claim
    asked: set[str] = field(default_factory=set)
    waits: dict[str, str] = field(default_factory=dict)

    def waiting_on(self) -> tuple[str, dict[str, Any]]:
        """What it suspends its run for, as the agents' part says it."""
        on: dict[str, Any] = {"effects": sorted(self.asked)} if self.asked else {}
        if self.waits:
            on["waits"] = [{"call_id": i, "for": kind} for i, kind in self.waits.items()]
        return "effects" if self.asked else "waits", on


class PeopleMachine(Promises, RuleBasedStateMachine):
    """Claims are kept for ever, so that every write is also tried by attempts that are over."""

    def __init__(self, make: Callable[[Clock], AbstractContextManager[Database]]) -> None:
        super().__init__()
        self.clock = Clock()
        self._made = make(self.clock)
        self.database = self._made.__enter__()
        asyncio.run(self.database.open())
        self.attempts: list[Going] = []
        self.views: dict[int, RunView] = {}
        self.decided = 0
        self.due: dict[Place, datetime] = {}
        self.sent = 0
        self.revived: set[int] = set()

    def teardown(self) -> None:
        try:
            if self.views:
                self.drive_to_the_end()
        finally:
            asyncio.run(self.database.close())
            self._made.__exit__(None, None, None)

    # --- helpers

    def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return self.database.write_blocking(operation, *args, **kwargs)

    def attempted[**P, T](
        self,
        going: Going,
        operation: Callable[P, Operation[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T | None:
        """A write of an attempt: it succeeds if the attempt is going, else it changes nothing."""
        run = self.views[going.claim.run_id].run
        current = run.state is RunState.EXECUTING and run.attempt == going.claim.attempt
        before = None if current else self.write(look)
        try:
            result = self.write(operation, *args, **kwargs)
        except LeaseLost:
            assert not current, f"{operation.__name__} of the current attempt was refused"
            assert self.write(look) == before, "a stale attempt changes nothing"
            return None
        assert current or operation is evidence.withdraw_intent, (
            f"{operation.__name__} came too late"
        )
        assert current or self.write(look) == before
        return result

    def tell(self, run: RunRecord | None, told: str) -> None:
        if run is not None and told == "all":
            asyncio.run(tell_end(self.database, run))
        if run is not None and told == "parent":
            self.write(children.tell_parent, run.id)

    def pick_run(self, pick: int) -> RunRecord:
        known = list(self.views.values())
        return known[pick % len(known)].run

    def pick_effect(self, pick: int, *, asked: bool) -> tuple[RunRecord, Effect] | None:
        """Mostly one that people are asked about; else any."""
        everything = [(v.run, e) for v in self.views.values() for e in v.effects.values()]
        among = [(run, e) for run, e in everything if e.asked or not asked]
        among = among if among and pick % 5 else everything
        return among[pick // 5 % len(among)] if among else None

    def pick_attempt(self, pick: int) -> Going:
        """Mostly one that is going, else any that ever was."""
        current = [a for a in self.attempts if self.is_going(a)]
        among = current if current and pick % 4 else self.attempts
        return among[-1 - pick // 4 % len(among)]

    def is_going(self, attempt: Going) -> bool:
        run = self.views[attempt.claim.run_id].run
        return run.state is RunState.EXECUTING and run.attempt == attempt.claim.attempt

    # --- runs, workers, crashes

    @initialize()
    def begin(self) -> None:
        """One run is being executed, another one waits for its child: that is there at once."""
        for number in (0, 1):
            self.enqueue(number, 3)
        for worker in ("w1", "w2"):
            self.heartbeat(worker)
        self.claim("w1", 2)
        self.views = self.write(look)
        parent = self.attempts[-1]
        self.starts_child(parent, 1)
        self.suspend_for(parent, told="all")

    @rule(number=st.integers(0, 2), attempts=st.integers(1, 3))
    def enqueue(self, number: int, attempts: int) -> None:
        self.write(runs.insert, new_run(f"r{number}", max_attempts=attempts))

    @rule(worker=worker_ids)
    def heartbeat(self, worker: str) -> None:
        self.write(workers.register, worker, worker, 1, {}, LEASE_SECONDS)

    @rule(worker=worker_ids, limit=st.integers(1, 4))
    def claim(self, worker: str, limit: int) -> None:
        claimed = self.write(attempts.claim, worker, "agents", limit)
        self.attempts += [Going(run.claim) for run in claimed]

    @rule(seconds=st.sampled_from([1.0, 3.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([0.0, LEASE_SECONDS + 1]), told=tells)
    def rescue(self, seconds: float, told: str) -> None:
        """With time passed: workers that have not sent a heartbeat since are dead."""
        self.clock.advance(seconds)
        for run in self.write(attempts.rescue):
            self.tell(run, told)

    # --- what an attempt does

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, number=st.integers(1, 2), seconds=seconds, leave=leaves)
    def sleep(self, pick: int, number: int, seconds: float, leave: str | None) -> None:
        going = self.pick_attempt(pick)
        self.wait(going, f"sleep #{number}", Wait("timer", within_seconds=seconds))
        self.leave(going, leave)

    @precondition(lambda self: self.attempts)
    @rule(
        pick=picks,
        name=st.sampled_from(["go", "go", "stop"]),
        number=st.integers(1, 3),
        timeout=st.none() | seconds,
        leave=leaves,
    )
    def wait_for_signal(
        self, pick: int, name: str, number: int, timeout: float | None, leave: str | None
    ) -> None:
        going = self.pick_attempt(pick)
        request = "{}" if timeout is None else f'{{"timeout": {timeout}}}'
        wait = Wait("signal", name, within_seconds=timeout, request=request)
        self.wait(going, f"signal {name} #{number}", wait)
        self.leave(going, leave)

    def wait(self, going: Going, step: str, wait: Wait) -> None:
        call = _call(CallPosition(1, 0, step))
        self.waits_for(going, self.attempted(going, waits.begin, going.claim, call, wait))

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, number=st.integers(1, 2), again=st.booleans(), leave=leaves)
    def run_child(self, pick: int, number: int, again: bool, leave: str | None) -> None:
        """Also one that another call of the run names, or has named."""
        going = self.pick_attempt(pick)
        self.starts_child(going, number, " again" if again else "")
        self.leave(going, leave)

    def starts_child(self, going: Going, number: int, place: str = "") -> None:
        parent = self.views[going.claim.run_id].run
        if parent.key.count("-") == 2:
            return  # Grandchildren are the youngest.
        new = new_run(f"{parent.key}-{number}", parent_id=parent.id, max_attempts=2)
        call = _call(CallPosition(1, 0, f"run {number}{place}"))
        self.waits_for(going, self.attempted(going, children.begin, going.claim, call, new))

    def waits_for(self, going: Going, effect: Effect | None) -> None:
        if effect is None:
            return
        if effect.state is EffectState.AWAITING:
            assert effect.ask is not None
            going.waits[effect.call_id] = effect.ask
        else:
            going.waits.pop(effect.call_id, None)  # The tool goes on from there.

    @precondition(lambda self: self.attempts)
    @rule(
        pick=picks,
        position=st.sampled_from(ASKED),
        kind=st.sampled_from(["approval", "approval", "question"]),
        within=st.sampled_from([None, 3.0]),
        on_expiry=st.sampled_from(["deny", "deny", "escalate", "wait"]),
        leave=leaves,
    )
    def ask(
        self,
        pick: int,
        position: CallPosition,
        kind: str,
        within: float | None,
        on_expiry: str,
        leave: str | None,
    ) -> None:
        """A call waits for a person; one that was asked about before still does, or is settled."""
        going = self.pick_attempt(pick)
        found = self.views[going.claim.run_id].effects.get(position)
        if found is None:
            ask = Ask(kind, "{}", within, on_expiry)
            outcome = CallOutcome(_call(position), EffectState.AWAITING, asked=True, ask=ask)
            self.attempted(going, steps.record_step, going.claim, Step(outcomes=(outcome,)))
        if found is None or (found.asked and not found.state.settled):
            going.asked.add(position.call_id)
        self.leave(going, leave)

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, position=st.sampled_from([*ACTED, *ASKED]))
    def act(self, pick: int, position: CallPosition) -> None:
        """Begin a call, or one that was approved."""
        going = self.pick_attempt(pick)
        if position in ASKED and not self.may_act(going, position):
            return
        self.attempted(going, steps.record_intent, going.claim, _call(position))

    def may_act(self, going: Going, position: CallPosition) -> bool:
        found = self.views[going.claim.run_id].effects.get(position)
        return found is not None and found.approved

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, position=st.sampled_from([*ACTED, *ASKED]), ends=st.booleans())
    def finish_call(self, pick: int, position: CallPosition, ends: bool) -> None:
        """It returned; or it raised, or is found in doubt, and a person is asked."""
        going = self.pick_attempt(pick)
        found = self.views[going.claim.run_id].effects.get(position)
        if found is None or found.state not in (EffectState.STARTED, EffectState.IN_DOUBT):
            return
        call = _call(position)
        if ends:
            outcome = CallOutcome(call, EffectState.DONE, RETURNED)
            self.attempted(going, steps.record_outcome, going.claim, outcome)
        else:
            outcome = CallOutcome(call, EffectState.IN_DOUBT, asked=True)
            if self.attempted(going, steps.record_doubt, going.claim, outcome) is not None:
                going.asked.add(position.call_id)

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, position=st.sampled_from([*ACTED, *ASKED]))
    def withdraw(self, pick: int, position: CallPosition) -> None:
        going = self.pick_attempt(pick)
        call = _call(position)
        self.attempted(going, evidence.withdraw_intent, going.claim, call, "not sent")

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, position=st.sampled_from(ACTED))
    def report_late(self, pick: int, position: CallPosition) -> None:
        going = self.pick_attempt(pick)
        outcome = CallOutcome(_call(position), EffectState.DONE, RETURNED)
        self.write(evidence.settle_late, going.claim, outcome)

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, meanwhile=st.sampled_from(MEANWHILE), told=tells)
    def suspend(self, pick: int, meanwhile: str, told: str) -> None:
        self.leave(self.pick_attempt(pick), meanwhile, told)

    def leave(self, going: Going, meanwhile: str | None, told: str = "all") -> None:
        """Suspend the run for what the attempt came to, which may be over at the last moment."""
        self.views = self.write(look)
        view = self.views[going.claim.run_id]
        match meanwhile:
            case "people":
                self.everybody_decides(view)
            case "signals":
                self.everybody_signals(view)
            case "clock":
                self.clock.advance(3.0)
                self.expire_due(100)
            case None:
                return
            case _:
                pass
        self.suspend_for(going, told)

    def suspend_for(self, going: Going, told: str) -> None:
        if going.asked or going.waits:
            kind, on = going.waiting_on()
            run = self.attempted(going, attempts.suspend, going.claim, kind, on, Step())
            self.tell(run, told)

    @precondition(lambda self: self.attempts)
    @rule(
        pick=picks,
        how=st.sampled_from(["complete", "fail", "fail", "discard", "stop", "hand back"]),
        told=tells,
    )
    def end_attempt(self, pick: int, how: str, told: str) -> None:
        going = self.pick_attempt(pick)
        ways: dict[str, tuple[Any, ...]] = {
            "complete": (attempts.complete, going.claim, '"x"', Step()),
            "fail": (attempts.fail, going.claim, "e", "t", FAIL_SECONDS, Step()),
            "discard": (attempts.discard, going.claim, "e", "t", Step()),
            "stop": (attempts.stop, going.claim, Step()),
            "hand back": (attempts.hand_back, going.claim, Step()),
        }
        self.tell(self.attempted(going, *ways[how]), told)

    # --- what people, the clock and other programs do

    @precondition(lambda self: self.views)
    @rule(
        pick=picks,
        what=st.sampled_from(["approve", "approve", "deny", "answer", "resolve"]),
        state=st.sampled_from([EffectState.DONE, EffectState.FAILED, None]),
        by=people,
        twice=st.booleans(),
    )
    def decide(self, pick: int, what: str, state: EffectState | None, by: str, twice: bool) -> None:
        """Also about what nobody asks, or somebody has decided."""
        picked = self.pick_effect(pick, asked=True)
        if picked is None:
            return
        run, effect = picked
        first = self.decides(run, effect, what, state, by)
        if first:
            self.decided += 1
            waited = effect.ask in WAIT_KINDS
            assert not waited and not run.state.final, f"{what} of {effect}, run {run.state}"
        if twice:
            again = self.decides(run, effect, what, state, "eve")
            assert not again, "it was decided already, or cannot be"

    def decides(
        self, run: RunRecord, effect: Effect, what: str, state: EffectState | None, by: str
    ) -> bool:
        settled = (EffectState.DONE, RETURNED, None, by, "")
        ways: dict[str, tuple[Any, ...]] = {
            "approve": (decisions.approve, None, None, by, ""),
            "deny": (
                decisions.decide,
                "denied",
                EffectState.DENIED,
                '{"failed":"no"}',
                None,
                by,
                "",
            ),
            "answer": (decisions.decide, "answered", *settled),
            "resolve": (decisions.resolve, state, state and RETURNED, None, by, ""),
        }
        operation, *args = ways[what]
        try:
            self.write(operation, run.key, effect.call_id, *args)
        except DurablyError:
            return False
        return True

    @precondition(lambda self: self.views)
    @rule(
        pick=picks,
        name=st.sampled_from(["go", "go", "stop"]),
        number=st.none() | st.integers(1, 3),
    )
    def signal(self, pick: int, name: str, number: int | None) -> None:
        run = self.pick_run(pick)
        self.sent += 1
        signal_id = None if number is None else f"{name} {number}"
        known = {s.signal_id for s in self.views[run.id].signals} - {None}
        try:
            self.write(waits.send_signal, run.key, name, f'"{self.sent}"', "ann", signal_id)
        except TransitionRefused:
            assert run.state.final
            return
        assert not run.state.final
        arrived = self.write(waits.list_signals, run.id)
        news = int(signal_id not in known)
        assert len(arrived) == len(self.views[run.id].signals) + news

    @rule(first_only=st.booleans())
    def expire(self, first_only: bool) -> None:
        """The clock's part, as a worker's maintenance does it, or is cut off doing it."""
        self.expire_due(1 if first_only else 100)

    def expire_due(self, limit: int) -> None:
        for key, call_id in self.write(expiry.list_expired, limit):
            before = len(self.all_decisions())
            self.write(expiry.expire, key, call_id)
            self.decided += len(self.all_decisions()) - before
        if limit > 1:
            assert not self.write(expiry.list_expired), "each is looked after once"

    def all_decisions(self) -> list[Decision]:
        return [d for view in self.write(look).values() for d in view.decisions]

    @precondition(lambda self: self.views)
    @rule(pick=picks, told=tells)
    def cancel(self, pick: int, told: str) -> None:
        run = self.pick_run(pick)
        try:
            self.tell(self.write(runs.cancel, run.key, "ann"), told)
        except TransitionRefused:
            assert run.state.final

    @precondition(lambda self: self.views)
    @rule(pick=picks, whole=st.booleans())
    def revive(self, pick: int, whole: bool) -> None:
        """As `Run.retry` does, or is cut off doing: children first, then the run."""
        over = (RunState.DISCARDED, RunState.CANCELLED)
        dead = [view.run for view in self.views.values() if view.run.state in over]
        if not dead:
            return
        run = dead[pick % len(dead)]
        for child in self.write(children.list_waited_for, run.id):
            self.write(runs.revive, child.key, children.BY_PARENT)
            self.revived.add(child.id)
        if whole:
            self.write(runs.revive, run.key, "ann")
            self.revived.add(run.id)

    @rule()
    def tell_what_nobody_told(self) -> None:
        asyncio.run(tell_ends(self.database))
        asyncio.run(tell_ends(self.database))  # Of those that were cancelled with their parents.
        assert not self.write(ends.list_untold), "told once, it is told"

    # --- what has to hold after each

    @invariant()
    def promises_hold(self) -> None:
        if not self.views and not self.attempts:
            self.views = self.write(look)
            return
        before, self.views = self.views, self.write(look)
        assert before.keys() <= self.views.keys(), "nothing is lost"
        for run_id, view in self.views.items():
            self.nobody_is_stranded(view)
            self.signals_are_taken_in_order(view)
            self.nothing_rings_early(view)
            if run_id in before:
                self.settled_stays_settled(before[run_id], view)
        self.each_is_decided_once()
        self.families_end_together()

    # --- the end

    def drive_to_the_end(self) -> None:
        """Everybody does their part: then every run ends."""
        self.promises_hold()
        for _ in range(MANY_ROUNDS):
            if all(v.run.state.final and not v.run.tells_end for v in self.views.values()):
                return
            self.clock.advance(LEASE_SECONDS + 1)
            self.heartbeat("w3")
            self.write(attempts.rescue)
            self.expire_due(100)
            asyncio.run(tell_ends(self.database))
            for view in self.write(look).values():
                if view.run.state is RunState.SUSPENDED:
                    self.everybody_decides(view)
                    self.everybody_signals(view)
            self.go_on_with_all()
            self.promises_hold()
        left = [view.run for view in self.views.values() if not view.run.state.final]
        raise AssertionError(f"these do not end: {left}")

    def everybody_decides(self, view: RunView) -> None:
        """About all that is asked in a run."""
        asked = [e for e in view.effects.values() if e.asked and not view.run.state.final]
        for effect in asked:
            what = {"approval": "approve", "question": "answer"}.get(effect.ask or "", "resolve")
            if self.decides(view.run, effect, what, EffectState.DONE, "ann"):
                self.decided += 1

    def everybody_signals(self, view: RunView) -> None:
        """What a run waits for."""
        for effect in view.effects.values():
            waits_for_it = effect.ask == "signal" and not effect.state.settled
            if waits_for_it and not view.run.state.final:
                assert effect.awaits is not None
                self.write(waits.send_signal, view.run.key, effect.awaits, "1", "ann", None)

    def go_on_with_all(self) -> None:
        """As tools do: to their first waits that are not over; else to their end."""
        claimed = self.write(attempts.claim, "w3", "agents", 100)
        self.views = self.write(look)
        for run in claimed:
            going = Going(run.claim)
            self.attempts.append(going)
            for effect in self.views[run.id].effects.values():
                if effect.state is EffectState.AWAITING and effect.ask in WAIT_KINDS:
                    self.go_on_waiting(going, run, effect)
                elif effect.asked:
                    going.asked.add(effect.call_id)
            if going.asked or going.waits:
                self.suspend_for(going, told="all")
            else:
                self.tell(self.write(attempts.complete, going.claim, '"x"', Step()), told="all")

    def go_on_waiting(self, going: Going, run: RunRecord, effect: Effect) -> None:
        call = _call(effect.position)
        if effect.ask == "child":
            assert effect.awaits is not None
            new = new_run(effect.awaits, parent_id=run.id)
            self.waits_for(going, self.write(children.begin, going.claim, call, new))
        else:
            assert effect.ask is not None
            wait = Wait(effect.ask, effect.awaits)
            self.waits_for(going, self.write(waits.begin, going.claim, call, wait))


def _call(position: CallPosition) -> ToolCall:
    return ToolCall(position, "tool", "call_0", "{}", "once", "ask", f"k:{position.call_id}")


@contextmanager
def on_sqlite(clock: Clock) -> Generator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        yield SqliteBackend(Path(folder) / "ledger.db", clock).database


def test_nobody_is_left_asleep_whatever_happens() -> None:
    run_state_machine_as_test(
        lambda: PeopleMachine(on_sqlite),
        settings=settings(max_examples=examples(40), stateful_step_count=50),
    )


def test_nobody_is_left_asleep_on_postgres_either(wiped_url: str) -> None:
    @contextmanager
    def on_postgres(clock: Clock) -> Generator[Database]:
        wipe(wiped_url)
        yield PostgresBackend(wiped_url, clock).database

    # Each of its steps waits for the disk: fewer of them.
    run_state_machine_as_test(
        lambda: PeopleMachine(on_postgres),
        settings=settings(max_examples=examples(8), stateful_step_count=40),
    )
