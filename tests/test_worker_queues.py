"""Workers do what was decided for their queues, soon, and whoever decided it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic_ai import Agent

from durably import Durably, Run, RunState, effects
from durably.dispatch import embedded
from durably.ledger.sqlite.database import SqliteDatabase
from support.ledgers import PATIENCE_SECONDS, until
from support.scripted import Script, call

NEVER_SECONDS = 3600.0


class Gate:
    """An agent whose runs wait in a tool until they are let through, one by one."""

    def __init__(self) -> None:
        self.agent = Agent(
            Script([call("wait")], "through").model, name="gate", deps_type=type(None)
        )
        self.executing = 0
        self._through = asyncio.Semaphore(0)

        @self.agent.tool_plain(metadata=effects.READ)
        async def wait() -> str:
            self.executing += 1
            try:
                await self._through.acquire()
            finally:
                self.executing -= 1
            return "through"

    def open(self, runs: int = 1) -> None:
        for _ in range(runs):
            self._through.release()

    async def holds(self, runs: int) -> None:
        await until(lambda: self.executing == runs, f"{runs} executing")


@pytest.fixture(autouse=True)
def no_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """What starts here, starts because its worker was woken; no heartbeat does that either."""
    monkeypatch.setattr(embedded, "POLL_SECONDS", NEVER_SECONDS)
    monkeypatch.setenv("DURABLY_LEASE", str(NEVER_SECONDS))


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def app(tmp_path: Path, gate: Gate) -> AsyncIterator[Durably]:
    app = Durably(f"sqlite:///{tmp_path}/ledger.db", agents=[gate.agent])
    app.register(Agent(Script("passed").model, name="echo"))
    async with app:
        yield app


@pytest.fixture
async def operator(app: Durably) -> AsyncIterator[Durably]:
    """Somebody else with the same ledger; no worker there, no agents."""
    async with Durably(app.ledger.url) as operator:
        yield operator


async def passes(app: Durably, queue: str) -> None:
    """A run goes through a queue: whatever the worker would do at once, it has done by then."""
    run = await app.enqueue("echo", "hi", queue=queue)
    assert await run.result(timeout=PATIENCE_SECONDS) == "passed"


async def state_of(run: Run[str]) -> RunState:
    return (await run.refresh()).state


async def test_paused_queue_starts_nothing_and_goes_on_when_resumed(
    app: Durably, operator: Durably, gate: Gate
) -> None:
    async with app.worker({"mail": 5, "other": 5}):
        before = await app.enqueue(gate.agent, "hi", queue="mail")
        await gate.holds(1)
        await operator.pause("mail")
        waiting = await app.enqueue("echo", "hi", queue="mail")
        await passes(app, "other")
        gate.open()
        assert await before.result(timeout=PATIENCE_SECONDS) == "through"
        await passes(app, "other")
        assert await state_of(waiting) is RunState.AVAILABLE
        await operator.resume("mail")
        assert await waiting.result(timeout=PATIENCE_SECONDS) == "passed"


async def test_worker_that_starts_later_keeps_to_it(
    app: Durably, operator: Durably, gate: Gate
) -> None:
    await operator.pause("mail")
    await operator.scale("other", 2)
    waiting = await app.enqueue("echo", "hi", queue="mail")
    held = [await app.enqueue(gate.agent, "hi", queue="other") for _ in range(3)]
    async with app.worker({"mail": 5, "other": 1, "third": 1}):
        await gate.holds(2)
        await passes(app, "third")
        assert await state_of(waiting) is RunState.AVAILABLE
        assert await state_of(held[2]) is RunState.AVAILABLE
        gate.open(3)
        for run in held:
            assert await run.result(timeout=PATIENCE_SECONDS) == "through"


async def test_scaled_up_queue_gets_more_at_once_on_each_worker(
    app: Durably, operator: Durably, gate: Gate
) -> None:
    held = [await app.enqueue(gate.agent, "hi") for _ in range(6)]
    async with app.worker({"agents": 1}) as one, app.worker({"agents": 2, "other": 1}) as two:
        await gate.holds(3)
        await operator.scale("agents", 2)
        await gate.holds(4)
        await passes(app, "other")
        assert (one.executing, two.executing) == (2, 2), "of each, not of both together"
        gate.open(6)
        for run in held:
            assert await run.result(timeout=PATIENCE_SECONDS) == "through"


async def test_scaled_down_queue_lets_end_what_is_under_way(
    app: Durably, operator: Durably, gate: Gate
) -> None:
    held = [await app.enqueue(gate.agent, "hi") for _ in range(4)]
    async with app.worker({"agents": 3, "other": 1}) as worker:
        await gate.holds(3)
        await operator.scale("agents", 1)
        await until(lambda: worker.queues.limit("agents") == 1, "told")
        gate.open(2)
        await gate.holds(1)
        await passes(app, "other")
        assert gate.executing == 1, "the fourth waits for its place"
        gate.open()
        await until(lambda: worker.executing == 1 and gate.executing == 1, "the fourth")
        gate.open()
        for run in held:
            assert await run.result(timeout=PATIENCE_SECONDS) == "through"
            assert [a.outcome for a in await run.attempts()] == ["completed"]


async def test_worker_goes_back_to_its_own_limit(
    app: Durably, operator: Durably, gate: Gate
) -> None:
    await operator.scale("agents", 1)
    for _ in range(3):
        await app.enqueue(gate.agent, "hi")
    async with app.worker({"agents": 3}):
        await gate.holds(1)
        await operator.scale("agents", None)
        await gate.holds(3)
        gate.open(3)


async def test_decision_reaches_a_worker_that_no_notice_reaches(
    app: Durably, operator: Durably, tmp_path: Path
) -> None:
    await app.close()
    app.ledger = SqliteDatabase(tmp_path / "ledger.db", watch_seconds=NEVER_SECONDS)
    async with app.worker({"agents": 1}) as worker:
        for limit in (7, 8, 9):  # The worker's own first writes wake it once or twice.
            await operator.scale("agents", limit)
            await until(lambda limit=limit: worker.free("agents") == limit, "scaled")
        await operator.pause("agents")
        await until(lambda: worker.queues.paused("agents"), "paused")
        assert worker.free("agents") == 0


async def test_listener_is_told_which_queue_has_changed(app: Durably) -> None:
    told: list[tuple[str, bool, int]] = []
    async with app.worker({"mail": 1, "other": 2}) as worker:
        settings = worker.queues

        def listen(queue: str) -> None:
            told.append((queue, settings.paused(queue), settings.limit(queue)))

        with settings.subscribe(listen):
            await app.pause("nobody's")
            await app.pause("mail")
            await until(lambda: len(told) == 1, "paused")
            await app.scale("other", 5)
            await until(lambda: len(told) == 2, "scaled")
            await app.pause("mail")
            await app.resume("mail")
            await until(lambda: len(told) == 3, "resumed")
        await app.pause("mail")
        await until(lambda: settings.paused("mail"), "paused again")
    assert told == [("mail", True, 1), ("other", False, 5), ("mail", False, 1)]


# --- executing here


async def test_drain_leaves_paused_queues_alone(app: Durably) -> None:
    waiting = await app.enqueue("echo", "hi")
    await app.pause("agents")
    assert await app.drain() == 0
    assert await state_of(waiting) is RunState.AVAILABLE
    await app.resume("agents")
    assert await app.drain() == 1
    assert await state_of(waiting) is RunState.COMPLETED


async def test_drain_keeps_to_the_scale(app: Durably, gate: Gate) -> None:
    await app.scale("agents", 2)
    for _ in range(3):
        await app.enqueue(gate.agent, "hi")
    draining = asyncio.create_task(app.drain({"agents": 3}))
    await gate.holds(2)
    executing = await app.runs(state="executing")
    gate.open(3)
    assert await draining == 3
    assert len(executing) == 2


async def test_script_executes_its_own_run_although_the_queue_is_paused(app: Durably) -> None:
    agent = app.registry.get("echo").agent
    await app.pause("agents")
    assert await app.run(agent, "hi", key="mine") == "passed"
    assert (await app.queues())[0].paused
