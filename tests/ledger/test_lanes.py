"""Lanes: what is about one subject is done in its order, and nobody else waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future

import pytest

from durably.errors import LedgerClosed
from durably.ledger.lanes import Answer, Job, Lane, tell
from durably.ledger.operations import Operation
from support.ledgers import PATIENCE_SECONDS


class Gate:
    """A job that says that it is under way, and waits until it may end."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self) -> Operation[None]:
        self.entered.set()
        assert self.open.wait(PATIENCE_SECONDS)
        return None
        yield


class Log:
    """Jobs that note that they were done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def job(self, name: str) -> Callable[[], Operation[None]]:
        def operation() -> Operation[None]:
            self.done.append(name)
            return None
            yield

        return operation


def work(batch: list[Job]) -> None:
    """Do a batch, telling each as soon as it is done."""
    for job in batch:
        for _ in job.operation():
            pass
        tell([Answer(job)])


@pytest.fixture
def lane() -> Generator[Lane]:
    lane = Lane("test", [work, work, work])
    yield lane
    stop(lane)


def stop(lane: Lane, meanwhile: Callable[[], None] = lambda: None) -> None:
    stopping = threading.Thread(target=lane.stop, daemon=True)
    stopping.start()
    meanwhile()
    stopping.join(PATIENCE_SECONDS)
    assert not stopping.is_alive(), "every thread ends"


def hold(lane: Lane, subject: object) -> Gate:
    gate = Gate()
    lane.submit(gate, subject)
    assert gate.entered.wait(PATIENCE_SECONDS)
    return gate


def wait(*futures: Future[None]) -> None:
    for future in futures:
        future.result(PATIENCE_SECONDS)


def test_jobs_about_one_subject_are_done_one_after_the_other(lane: Lane) -> None:
    log, gate = Log(), hold(lane, "a")
    after = [lane.submit(log.job(f"a{n}"), "a") for n in range(20)]
    wait(*(lane.submit(log.job("b"), subject) for subject in ("b", None) for _ in range(5)))
    assert log.done == ["b"] * 10, "others go on, on other threads"
    gate.open.set()
    wait(*after)
    assert log.done[10:] == [f"a{n}" for n in range(20)]


def test_subject_is_free_as_soon_as_its_own_job_is_done(lane: Lane) -> None:
    """Not when its whole batch is: that may wait for a lock."""
    gates = [hold(lane, None) for _ in range(3)]
    log, first, last = Log(), Gate(), Gate()
    lane.submit(first, "a")
    held = lane.submit(last, "b")
    for gate in gates:
        gate.open.set()
    assert first.entered.wait(PATIENCE_SECONDS)
    waiting = lane.submit(log.job("a"), "a")
    wait(*(lane.submit(log.job("other")) for _ in range(10)))
    first.open.set()
    wait(waiting)
    assert not held.done()
    last.open.set()
    wait(held)


def test_job_that_was_cancelled_holds_up_nobody(lane: Lane) -> None:
    log, gate = Log(), hold(lane, "a")
    cancelled, after = (lane.submit(log.job(name), "a") for name in ("cancelled", "after"))
    assert cancelled.cancel()
    gate.open.set()
    wait(after, lane.submit(log.job("later"), "a"))
    assert log.done == ["after", "later"]


@pytest.mark.parametrize("subject", ["a", None])
def test_closing_does_what_was_submitted_and_ends_every_thread(subject: str | None) -> None:
    for _ in range(50):
        lane, log = Lane("test", [work] * 4), Log()
        futures = [lane.submit(log.job(str(n)), subject) for n in range(20)]
        stop(lane)
        assert len(log.done) == 20
        wait(*futures)


def test_closing_waits_for_what_has_to_wait_itself() -> None:
    lane, log = Lane("test", [work] * 4), Log()
    gate = hold(lane, "a")
    waiting = lane.submit(log.job("a"), "a")

    def let_go() -> None:
        with pytest.raises(LedgerClosed):
            while True:
                lane.submit(log.job("other")).result(PATIENCE_SECONDS)
        gate.open.set()

    stop(lane, let_go)
    wait(waiting)


def test_many_threads_work_while_there_is_work(lane: Lane) -> None:
    gates = [hold(lane, n) for n in range(3)]
    log = Log()
    waiting = lane.submit(log.job("d"), "d")
    assert not waiting.done()
    gates[1].open.set()
    wait(waiting)
    for gate in gates:
        gate.open.set()
