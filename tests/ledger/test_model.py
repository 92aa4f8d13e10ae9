"""The ledger against a model of the promises, in whatever order things happen."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

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

from durably.errors import DurablyError
from durably.ledger import attempts, decisions, evidence, reads, runs, steps, workers
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.ledger.written import CallOutcome, NewMessage, Step
from durably.lifecycle import EffectState
from durably.records import Attempt, Claim, Effect, Event, RunRecord, StoredMessage
from support.ledger_model import Model, ModelEffect, ModelRun, Position, Refused
from support.ledgers import Clock, PostgresBackend, SqliteBackend, new_run, tool_call
from support.postgres import wipe
from support.sample import examples

LEASE_SECONDS = 10.0
FAIL_SECONDS = 5.0

POSITIONS: list[Position] = [(0, 0), (0, 1)]

picks = st.integers(0, 1000)
positions = st.sampled_from(POSITIONS)
worker_ids = st.sampled_from(["w1", "w2"])
outcomes = st.sampled_from(
    [
        (EffectState.DONE, False),
        (EffectState.FAILED, False),
        (EffectState.DENIED, False),
        (EffectState.AWAITING, True),
        (EffectState.IN_DOUBT, True),
        (EffectState.IN_DOUBT, False),
    ]
)


class RunView(NamedTuple):
    """Everything that the ledger has of one run."""

    run: RunRecord
    messages: list[StoredMessage]
    effects: list[Effect]
    attempts: list[Attempt]
    events: list[Event]


def look() -> Operation[dict[str, RunView]]:
    """All there is, by key."""
    views: dict[str, RunView] = {}
    for run in (yield from reads.list_runs(None, None, None, None, None, 1000)):
        views[run.key] = RunView(
            run,
            (yield from reads.list_messages(run.id)),
            (yield from reads.list_effects(run.id)),
            (yield from reads.list_attempts(run.id)),
            (yield from reads.list_events(run.id, 0, 10_000)),
        )
    return views


REFUSE_BY_VALUE = {evidence.withdraw_intent, evidence.settle_late}
"""Operations that say by what they return that they were refused."""


class LedgerMachine(RuleBasedStateMachine):
    """Does the same to a ledger and to the model, and compares the two after every step.

    Claims are kept for ever, so that every write is also tried by attempts that are long over.
    """

    def __init__(self, make: Callable[[Clock], AbstractContextManager[Database]]) -> None:
        super().__init__()
        self.clock = Clock()
        self._made = make(self.clock)
        self.database = self._made.__enter__()
        asyncio.run(self.database.open())
        self.model = Model(self.clock.now)
        self.claims: list[tuple[ModelRun, Claim]] = []
        self.written = 0
        self.before: dict[str, RunView] = {}
        self.revived: str | None = None

    def teardown(self) -> None:
        asyncio.run(self.database.close())
        self._made.__exit__(None, None, None)

    # --- helpers

    def both[**P, T](
        self,
        expect: Callable[[], object],
        operation: Callable[P, Operation[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T | None:
        """Do it to the model and to the ledger: both accept, or both refuse."""
        allowed = accepted = True
        result: T | None = None
        try:
            expect()
        except Refused:
            allowed = False
        try:
            result = self.database.write_blocking(operation, *args, **kwargs)
        except DurablyError:
            accepted = False
        if operation in REFUSE_BY_VALUE:
            accepted = result not in (None, False)
        assert accepted == allowed, f"{operation.__name__}: the model says {allowed}"
        return result

    # --- what happens

    @initialize(attempts=st.integers(1, 2))
    def begin(self, attempts: int) -> None:
        """Two runs, one of them in its second attempt: a stale attempt is there from the start."""
        for number in (0, 1):
            self.enqueue(number, priority=1, attempts=attempts, delay=0.0)
        self.heartbeat("w1")
        self.claim_due("w1", 1)
        self.leave_attempt(0, "handed_back")
        self.claim_due("w1", 2)

    @rule(
        number=st.integers(0, 3),
        priority=st.integers(0, 2),
        attempts=st.integers(1, 3),
        delay=st.sampled_from([0.0, 0.0, 0.0, 3.0]),
    )
    def enqueue(self, number: int, priority: int, attempts: int, delay: float) -> None:
        key = f"r{number}"
        created = self.model.enqueue(key, priority, attempts, delay)
        new = new_run(key, priority=priority, max_attempts=attempts, delay_seconds=delay)
        run, inserted = self.database.write_blocking(runs.insert, new)
        assert inserted == created
        self.model.runs[key].id = run.id

    @rule(worker=worker_ids)
    def heartbeat(self, worker: str) -> None:
        self.model.heartbeat(worker, LEASE_SECONDS)
        self.database.write_blocking(workers.register, worker, worker, 1, {}, LEASE_SECONDS)

    @rule(worker=worker_ids, limit=st.integers(1, 3))
    def claim_due(self, worker: str, limit: int) -> None:
        expected = self.model.claimable()[:limit]
        for run in expected:
            self.model.claim(run, worker)
        claimed = self.database.write_blocking(attempts.claim, worker, "agents", limit)
        assert [run.key for run in claimed] == [run.key for run in expected]
        self.adopt(claimed)

    @precondition(lambda self: self.model.runs)
    @rule(worker=worker_ids, pick=picks)
    def claim_one(self, worker: str, pick: int) -> None:
        run = self.pick_run(pick)
        claimable = run in self.model.claimable()
        if claimable:
            self.model.claim(run, worker)
        claimed = self.database.write_blocking(attempts.claim_one, worker, run.id)
        assert (claimed is not None) == claimable
        self.adopt([claimed] if claimed else [])

    @precondition(lambda self: self.claims)
    @rule(pick=picks)
    def checkpoint(self, pick: int) -> None:
        run, claim = self.pick_claim(pick)
        message = NewMessage(len(run.messages), "response", self.new_text())
        self.both(
            lambda: self.model.step(run, claim.attempt, message.body),
            steps.record_step,
            claim,
            Step(messages=(message,)),
        )

    @precondition(lambda self: self.claims)
    @rule(pick=picks, position=positions)
    def begin_call(self, pick: int, position: Position) -> None:
        run, claim = self.pick_claim(pick)
        self.both(
            lambda: self.model.intent(run, claim.attempt, position),
            steps.record_intent,
            claim,
            tool_call(*position),
        )

    @precondition(lambda self: self.claims)
    @rule(pick=picks, position=positions, outcome=outcomes)
    def finish_call(self, pick: int, position: Position, outcome: tuple[EffectState, bool]) -> None:
        run, claim = self.pick_claim(pick)
        state, asked = outcome
        result = self.new_text() if state.settled else None
        self.both(
            lambda: self.model.outcome(run, claim.attempt, position, state, result, asked),
            steps.record_outcome,
            claim,
            CallOutcome(tool_call(*position), state, result, asked=asked),
        )

    @precondition(lambda self: self.claims)
    @rule(pick=picks, position=positions)
    def withdraw_call(self, pick: int, position: Position) -> None:
        run, claim = self.pick_claim(pick)
        self.both(
            lambda: self.model.withdraw(run, claim.attempt, position),
            evidence.withdraw_intent,
            claim,
            tool_call(*position),
            "not sent",
        )

    @precondition(lambda self: self.claims)
    @rule(pick=picks, position=positions)
    def report_late(self, pick: int, position: Position) -> None:
        run, claim = self.pick_claim(pick)
        result = self.new_text()
        self.both(
            lambda: self.model.late(run, claim.attempt, position, result),
            evidence.settle_late,
            claim,
            CallOutcome(tool_call(*position), EffectState.DONE, result),
        )

    @precondition(lambda self: self.claims)
    @rule(
        pick=picks, how=st.sampled_from(["failed", "failed", "completed", "discarded", "cancelled"])
    )
    def end_attempt(self, pick: int, how: str) -> None:
        run, claim = self.pick_claim(pick)
        text = self.new_text()
        step = Step(messages=(NewMessage(len(run.messages), "response", text),))
        ways: dict[str, tuple[Any, ...]] = {
            "completed": (attempts.complete, claim, '"x"', step),
            "failed": (attempts.fail, claim, "e", "t", FAIL_SECONDS, step),
            "discarded": (attempts.discard, claim, "e", "t", step),
            "cancelled": (attempts.stop, claim, step),
        }
        self.end(run, claim, how, text, ways[how])

    @precondition(lambda self: self.claims)
    @rule(pick=picks, how=st.sampled_from(["suspended", "handed_back"]))
    def leave_attempt(self, pick: int, how: str) -> None:
        run, claim = self.pick_claim(pick)
        text = self.new_text()
        step = Step(messages=(NewMessage(len(run.messages), "response", text),))
        ways: dict[str, tuple[Any, ...]] = {
            "suspended": (attempts.suspend, claim, "effects", {}, step),
            "handed_back": (attempts.hand_back, claim, step),
        }
        self.end(run, claim, how, text, ways[how])

    def end(self, run: ModelRun, claim: Claim, how: str, text: str, way: tuple[Any, ...]) -> None:
        def expect() -> None:
            self.model.step(run, claim.attempt, text)
            self.model.end(run, claim.attempt, how)

        operation, *args = way
        self.both(expect, operation, *args)

    @precondition(lambda self: self.model.runs)
    @rule(
        pick=picks,
        position=positions,
        decision=st.sampled_from([EffectState.DONE, EffectState.FAILED, EffectState.DENIED, None]),
    )
    def decide(self, pick: int, position: Position, decision: EffectState | None) -> None:
        run, text = self.pick_run(pick), self.new_text()
        self.both(
            lambda: self.model.resolve(run, position, decision, text),
            decisions.resolve,
            run.key,
            f"{position[0]}.{position[1]}",
            decision,
            text,
            None,
            "ann",
            "",
        )

    @precondition(lambda self: self.model.runs)
    @rule(pick=picks, what=st.sampled_from(["cancel", "wake", "revive", "revive"]))
    def operate(self, pick: int, what: str) -> None:
        run = self.pick_run(pick)
        match what:
            case "cancel":
                self.both(lambda: self.model.cancel(run), runs.cancel, run.key, "ann")
            case "wake":
                self.both(lambda: self.model.wake(run), runs.wake, run.key, "ann")
            case _:
                self.revived = run.key
                self.both(lambda: self.model.revive(run), runs.revive, run.key, "ann")

    @rule(seconds=st.sampled_from([0.5, 3.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        """Also how workers crash: nothing but their heartbeat says that they live."""
        self.clock.advance(seconds)
        self.model.now = self.clock.now

    @rule(seconds=st.sampled_from([0.0, LEASE_SECONDS + 1]))
    def rescue(self, seconds: float) -> None:
        self.time_passes(seconds)
        expected = self.model.rescue()
        assert {r.key for r in self.database.write_blocking(attempts.rescue)} == expected

    # --- what has to hold after each

    @invariant()
    def ledger_is_what_the_promises_say(self) -> None:
        views = self.database.write_blocking(look)
        assert views.keys() == self.model.runs.keys(), "nothing is lost"
        for key, view in views.items():
            self.matches_the_model(view, self.model.runs[key])
            self.is_sound(view)
            if key in self.before:
                self.follows(self.before[key], view)
        self.before, self.revived = views, None

    def matches_the_model(self, view: RunView, expected: ModelRun) -> None:
        run = view.run
        assert (run.id, run.state, run.attempt) == (expected.id, expected.state, expected.attempt)
        assert (run.failures, run.crashes) == (expected.failures, expected.crashes)
        assert run.worker_id == expected.worker
        assert (run.cancel_requested_at is not None) == expected.cancelling
        if run.state in ("available", "scheduled", "retryable"):
            assert run.scheduled_at == expected.due
        assert [m.body for m in view.messages] == expected.messages
        assert [a.outcome for a in view.attempts] == expected.ends
        effects = {
            e.position[:2]: ModelEffect(e.state, e.attempt, e.asked, e.result, e.resolved_by)
            for e in view.effects
        }
        assert effects == expected.effects

    def is_sound(self, view: RunView) -> None:
        run = view.run
        assert (run.state == "suspended") == (run.waiting_on is not None)
        assert (run.state == "executing") == (run.worker_id is not None)
        assert run.state.final == (run.finished_at is not None)
        assert [m.seq for m in view.messages] == list(range(len(view.messages)))
        underway = [a.attempt for a in view.attempts if a.ended_at is None]
        assert underway == ([run.attempt] if run.state == "executing" else [])
        assert all(e.state != "started" for e in view.effects) or run.state == "executing"

    def follows(self, before: RunView, after: RunView) -> None:
        """What was true stays true: one step later, only what may change has changed."""
        assert after.messages[: len(before.messages)] == before.messages
        assert after.events[: len(before.events)] == before.events
        assert after.run.attempt >= before.run.attempt
        settled = {e.position: e for e in before.effects if e.state.settled}
        assert settled.items() <= {e.position: e for e in after.effects}.items()
        ended = [a for a in before.attempts if a.ended_at is not None]
        assert after.attempts[: len(ended)] == ended
        if before.run.state.final and after.run.state != before.run.state:
            assert self.revived == after.run.key, "a final run leaves only by revive"

    # --- picking

    def pick_run(self, pick: int) -> ModelRun:
        known = list(self.model.runs.values())
        return known[pick % len(known)]

    def pick_claim(self, pick: int) -> tuple[ModelRun, Claim]:
        """Mostly one that holds its run, else any that ever did."""
        current = [
            (run, claim)
            for run, claim in self.claims
            if run.state == "executing" and run.attempt == claim.attempt
        ]
        among = current if current and pick % 3 else self.claims
        return among[-1 - pick // 3 % len(among)]

    def new_text(self) -> str:
        self.written += 1
        return f'"{self.written}"'

    def adopt(self, claimed: list[RunRecord]) -> None:
        self.claims += [(self.model.runs[record.key], record.claim) for record in claimed]


@contextmanager
def on_sqlite(clock: Clock) -> Generator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        yield SqliteBackend(Path(folder) / "ledger.db", clock).database


def test_ledger_keeps_its_promises_whatever_happens() -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(on_sqlite),
        settings=settings(max_examples=examples(80), stateful_step_count=60),
    )


def test_ledger_keeps_its_promises_on_postgres_too(wiped_url: str) -> None:
    @contextmanager
    def on_postgres(clock: Clock) -> Generator[Database]:
        wipe(wiped_url)
        yield PostgresBackend(wiped_url, clock).database

    # Each of its steps waits for the disk: fewer of them.
    run_state_machine_as_test(
        lambda: LedgerMachine(on_postgres),
        settings=settings(max_examples=examples(15), stateful_step_count=40),
    )
