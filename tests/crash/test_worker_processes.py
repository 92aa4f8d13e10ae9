"""Worker processes among themselves: leaving, dying for good, cancelling, waking, sharing."""

import asyncio
import os
import signal
import statistics
from collections.abc import Awaitable, Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent

from crash import children
from crash.databases import instant
from crash.grounds import Grounds
from crash.jobs import JOBS
from crash.processes import Processes, ended, eventually, is_alive
from crash.promises import Moment
from crash.undisturbed import EVERYTHING, logs
from crash.world import World
from durably import Durably, RunState
from durably.dispatch.embedded import POLL_SECONDS
from matrix.record import proved

pytestmark = pytest.mark.timeout(1800)

KEY = "order-42"
HANGS = "tool hangs while its worker is told to leave"


@pytest.fixture
def world(grounds: Grounds, tmp_path: Path) -> World:
    return grounds.world(tmp_path / "world")


class Workers:
    """Worker processes for one job."""

    def __init__(self, world: World, job: str, processes: Processes) -> None:
        self._world = world
        self._job = job
        self._processes = processes

    def start(self, **options: float) -> BaseProcess:
        """Start one; it may take whatever is there before this returns."""
        before = len(self._world.records("ready"))
        args = self._world.folder, self._job
        process = self._processes.start(children.worker, *args, **options)
        eventually("a worker is ready", lambda: len(self._world.records("ready")) > before)
        return process


# --- leaving


@pytest.mark.parametrize("kind", ["async", "in a thread"])
def test_worker_told_to_leave_hands_back_at_the_next_checkpoint(
    kind: str, world: World, processes: Processes
) -> None:
    """The tool under way is let finish; another worker goes on at once; nothing is counted."""
    workers = Workers(world, job := f"gated {kind}", processes)
    _ask(world, job, _enqueue)
    leaving = workers.start()
    eventually("at the gate", lambda: world.records("at the gate"))
    staying = workers.start()
    _tell(leaving, signal.SIGTERM)
    world.open_gate()
    assert ended(leaving) == 0, logs(world.folder)
    eventually("completed", lambda: _run(world)["state"] == "completed")
    _tell(staying, signal.SIGTERM)
    assert ended(staying) == 0, logs(world.folder)

    end = Moment.of(world)
    assert [attempt["outcome"] for attempt in end.attempts] == ["handed_back", "completed"]
    assert (_run(world)["failures"], _run(world)["crashes"]) == (0, 0)
    assert set(end.happened.values()) == {1}
    assert end.paid == 3
    print(f"resumed {_between(world, 'handed_back', 'claimed') * 1000:.0f} ms after")


@pytest.mark.parametrize("kind", ["async", "in a thread"])
def test_what_outlasts_the_grace_period_is_stopped_and_handed_back(
    kind: str, world: World, processes: Processes
) -> None:
    workers = Workers(world, job := f"gated {kind}", processes)
    _ask(world, job, _enqueue)
    leaving = workers.start(grace_seconds=0.2)
    eventually("at the gate", lambda: world.records("at the gate"))
    _tell(leaving, signal.SIGTERM)
    assert ended(leaving) == 0, logs(world.folder)
    run = _run(world)
    assert (run["state"], run["failures"], run["crashes"]) == ("available", 0, 0)

    world.open_gate()
    workers.start()
    eventually("completed", lambda: _run(world)["state"] == "completed")
    outcomes = [attempt["outcome"] for attempt in Moment.of(world).attempts]
    assert outcomes == ["handed_back", "completed"]
    proved(HANGS, moment="tool", policy="READ", database=world.database.dialect)


def test_once_tool_that_outlasts_the_grace_period_is_in_doubt(
    world: World, processes: Processes
) -> None:
    workers = Workers(world, "gated once", processes)
    _ask(world, "gated once", _enqueue)
    leaving = workers.start(grace_seconds=0.2)
    eventually("at the gate", lambda: world.records("at the gate"))
    _tell(leaving, signal.SIGTERM)
    assert ended(leaving) == 0, logs(world.folder)
    workers.start()
    eventually("suspended", lambda: _run(world)["state"] == "suspended")
    (effect,) = Moment.of(world).effects.values()
    assert (effect["state"], effect["asked"]) == ("in_doubt", 1)
    assert not world.effects()
    proved(HANGS, moment="tool", policy="once, ask", database=world.database.dialect)


def test_stopping_a_transaction_in_a_thread_harms_neither_worker_nor_table(
    world: World, processes: Processes
) -> None:
    """Its thread is using the connection at that moment, which must not crash the process."""
    workers = Workers(world, "booking", processes)
    _ask(world, "booking", _enqueue)
    leaving = workers.start(grace_seconds=0.2)
    eventually("at the gate", lambda: world.records("at the gate"))
    _tell(leaving, signal.SIGTERM)
    assert ended(leaving) == 0, logs(world.folder)
    assert not Moment.of(world).happened

    world.open_gate()
    workers.start()
    eventually("completed", lambda: _run(world)["state"] == "completed")
    assert list(Moment.of(world).happened.values()) == [1]
    proved(HANGS, moment="tool", policy="TRANSACTIONAL", database=world.database.dialect)


# --- dying for good


def test_run_that_kills_every_worker_is_discarded_with_its_history(
    world: World, processes: Processes
) -> None:
    workers = Workers(world, "deadly", processes)
    _ask(world, "deadly", _enqueue)
    for _ in range(3):
        assert ended(workers.start()) == -signal.SIGKILL, logs(world.folder)
        children.let_leases_end(world)
    workers.start()
    eventually("discarded", lambda: _run(world)["state"] == "discarded")

    run, end = _run(world), Moment.of(world)
    assert (run["crashes"], run["failures"], run["attempt"]) == (3, 0, 3)
    assert "died in 3 attempts" in run["error"]
    assert [attempt["outcome"] for attempt in end.attempts] == ["lost"] * 3
    assert list(end.happened.values()) == [1], "what was done stays done"
    assert end.responses == end.paid == 2, "what was paid is kept, and was paid once"


# --- cancelling


@pytest.mark.parametrize("kind", ["async", "in a thread"])
def test_cancel_reaches_an_executing_run_of_another_process(
    kind: str, world: World, processes: Processes
) -> None:
    workers = Workers(world, job := f"gated {kind}", processes)
    _ask(world, job, _enqueue)
    staying = workers.start()
    eventually("at the gate", lambda: world.records("at the gate"))
    _ask(world, job, _cancel)
    eventually("cancelled", lambda: _run(world)["state"] == "cancelled")
    print(f"cancelled {_between(world, 'cancel_requested', 'cancelled') * 1000:.0f} ms after")
    (attempt,) = Moment.of(world).attempts
    assert attempt["outcome"] == "cancelled"
    assert is_alive(staying)
    assert not world.effects()


# --- waking


def test_idle_worker_wakes_when_another_process_enqueues(
    world: World, processes: Processes
) -> None:
    Workers(world, "read", processes).start()
    count = 12

    async def one_by_one(app: Durably, agent: Agent[None, str]) -> None:
        for number in range(count):
            run = await app.enqueue(agent, "Hello?", key=f"hello-{number}")
            await run.result(timeout=children.PATIENCE_SECONDS)

    _ask(world, "read", one_by_one)
    waits = sorted(_between(world, "enqueued", "claimed", f"hello-{n}") for n in range(count))
    median = statistics.median(waits)
    print(f"woken after {median * 1000:.1f} ms (median), {waits[-1] * 1000:.1f} ms at most")
    assert median < POLL_SECONDS / 2, "woken by its notices, not by the net under them"


# --- sharing


def test_many_workers_on_one_ledger_execute_every_run_once(
    world: World, processes: Processes
) -> None:
    workers = Workers(world, "ask", processes)
    keys = [f"run-{number}" for number in range(100 if EVERYTHING else 40)]

    async def all_at_once(app: Durably, agent: Agent[None, str]) -> None:
        found = [await app.enqueue(agent, "Hello?", key=key) for key in keys]
        for run in found:
            await run.result(timeout=children.PATIENCE_SECONDS)
            attempts = await run.attempts()
            assert [attempt.outcome for attempt in attempts] == ["completed"]
            assert run.record.attempt == 1

    started = [workers.start() for _ in range(4)]
    _ask(world, "ask", all_at_once)
    for process in started:
        _tell(process, signal.SIGTERM)
        assert ended(process) == 0, logs(world.folder)
    assert world.effects() == {f"{key}:1.0": 1 for key in keys}
    assert world.paid() == 2 * len(keys)
    payers = {fact["pid"] for fact in world.records("paid")}
    print(f"{len(payers)} of {len(started)} workers had a share")


# --- helpers


def _ask(
    world: World, job: str, question: Callable[[Durably, Agent[None, str]], Awaitable[None]]
) -> None:
    """Use the library from this process, as any client would."""

    async def ask() -> None:
        app, agent = JOBS[job](world)
        async with app:
            await question(app, agent)

    asyncio.run(ask())


async def _enqueue(app: Durably, agent: Agent[None, str]) -> None:
    await app.enqueue(agent, "Look after order 42.", key=KEY)


async def _cancel(app: Durably, agent: Agent[None, str]) -> None:
    run = await app.get(KEY)
    assert run.state is RunState.EXECUTING
    await run.cancel()


def _run(world: World) -> dict[str, Any]:
    """The run as it is now."""
    return world.database.rows("SELECT * FROM durably_runs")[0]


def _between(world: World, first: str, then: str, key: str = KEY) -> float:
    """Seconds from a run's event to the next one of another kind."""
    sql = f"""SELECT a.at AS first, b.at AS next FROM durably_runs r
              JOIN durably_events a ON a.run_id = r.id AND a.kind = '{first}'
              JOIN durably_events b ON b.run_id = r.id AND b.kind = '{then}' AND b.id > a.id
              WHERE r.key = '{key}' ORDER BY b.id LIMIT 1"""
    (found,) = world.database.rows(sql)
    return (instant(found["next"]) - instant(found["first"])).total_seconds()


def _tell(process: BaseProcess, number: signal.Signals) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)
