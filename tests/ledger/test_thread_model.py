"""A thread's line in whatever order things happen: one goes at a time, in order, nobody is lost."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from durably.errors import ThreadBusy, TransitionRefused
from durably.ledger import attempts, ends, reads, runs, steps, threads, workers
from durably.ledger.database import Database
from durably.ledger.written import NewMessage, Step
from durably.lifecycle import RunState
from durably.records import RunRecord
from support.ledgers import Clock, PostgresBackend, SqliteBackend, new_run
from support.postgres import wipe
from support.sample import examples

T = "customer-7"
LEASE_SECONDS = 10.0

picks = st.integers(0, 1000)


class ThreadMachine(RuleBasedStateMachine):
    """One thread; ends are told late, as when whoever should tell them died."""

    def __init__(self, make: Callable[[Clock], AbstractContextManager[Database]]) -> None:
        super().__init__()
        self.clock = Clock()
        self._made = make(self.clock)
        self.database = self._made.__enter__()
        asyncio.run(self.database.open())
        self.number = 0
        self.began: list[int] = []
        self.steered: dict[str, str] = {}

    def teardown(self) -> None:
        self.settle()
        while line := self.line():
            # Whoever is first can always go on: nobody is stranded.
            self.clock.advance(100)
            self.heartbeat()
            going = line[0]
            if going.state is not RunState.EXECUTING:
                claimed = self.database.write_blocking(attempts.claim_one, "w1", going.id)
                assert claimed is not None, f"{going.key} is first and cannot go on"
                self.claimed(claimed)
            self.end_attempt(RunState.COMPLETED)
            self.settle()
        asyncio.run(self.database.close())
        self._made.__exit__(None, None, None)

    # --- looks

    def all(self) -> list[RunRecord]:
        found = self.database.write_blocking(reads.list_runs, None, None, None, None, None, 1000, T)
        return sorted(found, key=lambda run: run.id)

    def line(self) -> list[RunRecord]:
        return [run for run in self.all() if not run.state.final]

    def going(self) -> RunRecord | None:
        return next((r for r in self.line() if r.state is RunState.EXECUTING), None)

    def claimed(self, run: RunRecord) -> None:
        later = [r.key for r in self.all() if r.id > run.id and r.attempt > 0]
        assert not later, f"{run.key} begins after {later}"
        self.began.append(run.id)

    def heartbeat(self) -> None:
        self.database.write_blocking(workers.register, "w1", "w1", 1, {}, LEASE_SECONDS)

    # --- what happens

    @rule(
        on_busy=st.sampled_from(["queue", "queue", "reject", "interrupt", "steer", "steer"]),
        delay=st.sampled_from([0.0, 0.0, 5.0]),
        priority=st.integers(0, 9),
    )
    def enqueue(self, on_busy: str, delay: float, priority: int) -> None:
        self.number += 1
        idle = not self.line()
        new = new_run(
            f"r{self.number}",
            thread=T,
            on_busy=on_busy,
            delay_seconds=delay,
            priority=priority,
            max_attempts=2,
        )
        try:
            run, created = self.database.write_blocking(runs.insert, new)
        except ThreadBusy:
            assert on_busy == "reject"
            assert not idle
            return
        assert created
        assert run.in_line != idle

    @rule()
    def claim(self) -> None:
        self.heartbeat()
        claimed = self.database.write_blocking(attempts.claim, "w1", "agents", 10)
        assert len(claimed) <= 1
        for run in claimed:
            self.claimed(run)

    @rule()
    def steer(self) -> None:
        if (run := self.going()) is None:
            return
        steers = self.database.write_blocking(threads.list_steers, T, run.id)
        history = self.database.write_blocking(reads.list_messages, run.id)
        message = NewMessage(len(history), "request", "{}", tuple(steers))
        self.database.write_blocking(steps.record_step, run.claim, Step(messages=(message,)))
        self.steered |= {steer.key: run.key for steer in steers}

    @rule(
        how=st.sampled_from(
            [RunState.COMPLETED, RunState.DISCARDED, RunState.CANCELLED, RunState.RETRYABLE]
        )
    )
    def end_attempt(self, how: RunState) -> None:
        if (run := self.going()) is None:
            return
        write, step = self.database.write_blocking, Step()
        match how:
            case RunState.COMPLETED:
                write(attempts.complete, run.claim, '"x"', step)
            case RunState.DISCARDED:
                write(attempts.discard, run.claim, "no", "", step)
            case RunState.CANCELLED:
                write(attempts.stop, run.claim, step)
            case _:
                write(attempts.fail, run.claim, "boom", "", 3.0, step)

    @precondition(lambda self: self.number)
    @rule(pick=picks, what=st.sampled_from(["cancel", "revive", "wake"]))
    def operate(self, pick: int, what: str) -> None:
        known = self.all()
        run = known[pick % len(known)] if known else None
        if run is None:
            return
        operation = {"cancel": runs.cancel, "revive": runs.revive, "wake": runs.wake}[what]
        try:
            self.database.write_blocking(operation, run.key, "ann")
        except TransitionRefused:
            return
        assert what != "wake", "nobody here waits for a decision"
        self.steered.pop(run.key, None)

    @rule()
    def settle(self) -> None:
        """What maintenance does: ends are told, interruptions carried out."""
        write = self.database.write_blocking
        for run in write(threads.list_interrupts):
            target = write(reads.get_run, (run.waiting_on or {})["interrupts"])
            if not target.state.final:
                write(runs.cancel, target.key, "interrupt")
            write(threads.interrupted, run.id)
        for run in write(ends.list_untold):
            self.tell(run)
        line = self.line()
        assert not line or not line[0].in_line, f"{line[0].key} is first, and nobody woke it"

    def tell(self, run: RunRecord) -> None:
        while self.database.write_blocking(threads.release, T):
            continue
        self.database.write_blocking(ends.told, run)

    @rule(seconds=st.sampled_from([1.0, 4.0, LEASE_SECONDS + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.database.write_blocking(attempts.rescue)

    # --- what has to hold after each

    @invariant()
    def one_goes_at_a_time(self) -> None:
        line = self.line()
        assert all(run.in_line for run in line[1:]), "only the first goes on"

    @invariant()
    def messages_end_with_the_run_that_saw_them(self) -> None:
        runs_ = {run.key: run for run in self.all()}
        for message, saw in self.steered.items():
            run, by = runs_[message], runs_[saw]
            if run.state.final and by.state.final and run.attempt == 0 and not run.tells_end:
                assert run.state in (by.state, RunState.CANCELLED)
                assert run.output == by.output or run.state is RunState.CANCELLED


@contextmanager
def on_sqlite(clock: Clock) -> Generator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        yield SqliteBackend(Path(folder) / "ledger.db", clock).database


def test_thread_goes_on_in_order_whatever_happens() -> None:
    run_state_machine_as_test(
        lambda: ThreadMachine(on_sqlite),
        settings=settings(max_examples=examples(60), stateful_step_count=40),
    )


def test_thread_goes_on_in_order_on_postgres_too(wiped_url: str) -> None:
    @contextmanager
    def on_postgres(clock: Clock) -> Generator[Database]:
        wipe(wiped_url)
        yield PostgresBackend(wiped_url, clock).database

    # Each of its steps waits for the disk: fewer of them.
    run_state_machine_as_test(
        lambda: ThreadMachine(on_postgres),
        settings=settings(max_examples=examples(10), stateful_step_count=30),
    )
