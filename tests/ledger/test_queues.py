"""Pausing and scaling queues: kept in the ledger, for every claim and every worker alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from durably.errors import ConfigError
from durably.ledger import attempts, queues, reads, runs, workers
from durably.ledger.operations import Operation
from durably.ledger.written import Step
from durably.lifecycle import RunState
from durably.records import QueueRecord, QueueSetting, RunRecord
from support.ledgers import LEASE_SECONDS, PATIENCE_SECONDS, Ledger

USUAL = QueueSetting("agents", paused=False, limit=None)


async def claimed(ledger: Ledger, queue: str = "agents") -> list[str]:
    return [run.key for run in await ledger.write(attempts.claim, "w1", queue, 100)]


async def stored(ledger: Ledger) -> list[tuple[object, ...]]:
    return ledger.backend.select(
        "SELECT queue, paused, runs_at_once FROM durably_queues ORDER BY queue"
    )


async def setting(ledger: Ledger, queue: str = "agents") -> QueueSetting:
    return await ledger.read(queues.get_setting, queue)


# --- pausing


async def test_paused_queue_gives_no_run_away_and_others_do(ledger: Ledger) -> None:
    await ledger.insert("mine")
    await ledger.insert("theirs", queue="other")
    assert (await ledger.write(queues.pause, "agents")).paused
    assert await claimed(ledger) == []
    assert await claimed(ledger, "other") == ["theirs"]
    assert await ledger.write(queues.resume, "agents") == USUAL
    assert await claimed(ledger) == ["mine"]


async def test_queue_may_be_paused_before_it_has_a_run(ledger: Ledger) -> None:
    await ledger.write(queues.pause, "agents")
    await ledger.insert("early")
    assert await claimed(ledger) == []
    await ledger.write(queues.resume, "agents")
    assert await claimed(ledger) == ["early"]


async def test_nothing_of_a_paused_queue_is_due(ledger: Ledger) -> None:
    """A worker that was told of a run, and not yet of the pause, has nothing to try."""
    await ledger.insert()
    await ledger.write(queues.pause, "agents")
    assert await ledger.read(reads.next_due, "agents") == (None, ledger.clock.now)
    await ledger.write(queues.resume, "agents")
    assert await ledger.read(reads.next_due, "agents") == (ledger.clock.now, ledger.clock.now)


async def test_run_of_a_paused_queue_can_be_claimed_by_name(ledger: Ledger) -> None:
    run = await ledger.insert()
    await ledger.write(queues.pause, "agents")
    assert (await ledger.claim(run)).state is RunState.EXECUTING


async def test_attempt_under_way_goes_on_while_its_queue_is_paused(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.write(queues.pause, "agents")
    ended = await ledger.write(attempts.complete, run.claim, '"done"', Step())
    assert ended.state is RunState.COMPLETED


async def _handed_back(ledger: Ledger, run: RunRecord) -> None:
    await ledger.write(attempts.hand_back, run.claim, Step())


async def _failed(ledger: Ledger, run: RunRecord) -> None:
    await ledger.write(attempts.fail, run.claim, "boom", "", 0.0, Step())


async def _woken(ledger: Ledger, run: RunRecord) -> None:
    await ledger.write(attempts.suspend, run.claim, "operator", {}, Step())
    await ledger.write(runs.wake, run.key, "me")


async def _rescued(ledger: Ledger, run: RunRecord) -> None:
    ledger.clock.advance(LEASE_SECONDS + 1)
    assert await ledger.write(attempts.rescue)


@pytest.mark.parametrize("end", [_handed_back, _failed, _woken, _rescued])
async def test_run_that_comes_back_to_a_paused_queue_waits(
    ledger: Ledger, end: Callable[[Ledger, RunRecord], Awaitable[None]]
) -> None:
    run = await ledger.executing()
    await ledger.write(queues.pause, "agents")
    await end(ledger, run)
    assert await claimed(ledger) == []
    await ledger.write(queues.resume, "agents")
    assert await claimed(ledger) == [run.key]


async def test_pausing_twice_keeps_the_time_of_the_first(ledger: Ledger) -> None:
    await ledger.write(queues.pause, "agents")
    before = ledger.backend.select("SELECT changed_at FROM durably_queues")
    ledger.clock.advance(60)
    await ledger.write(queues.pause, "agents")
    assert ledger.backend.select("SELECT changed_at FROM durably_queues") == before


# --- scaling


async def test_scaling_and_pausing_do_not_touch_each_other(ledger: Ledger) -> None:
    await ledger.write(queues.scale, "agents", 3)
    assert await ledger.write(queues.pause, "agents") == QueueSetting("agents", True, 3)
    assert await ledger.write(queues.scale, "agents", 5) == QueueSetting("agents", True, 5)
    assert await ledger.write(queues.resume, "agents") == QueueSetting("agents", False, 5)
    await ledger.write(queues.pause, "agents")
    assert await ledger.write(queues.scale, "agents", None) == QueueSetting("agents", True, None)


@pytest.mark.parametrize("limit", [0, -1, 1_000_000])
async def test_limit_that_cannot_be_is_refused(ledger: Ledger, limit: int) -> None:
    with pytest.raises(ConfigError, match=f"^{limit} runs at once: from 1 to 999999; to stop"):
        await ledger.write(queues.scale, "agents", limit)
    assert await stored(ledger) == []


@pytest.mark.parametrize("name", ["", " ", "a\0b", "half \ud83d"])
async def test_name_that_cannot_be_is_refused(ledger: Ledger, name: str) -> None:
    for operation in (queues.pause, queues.resume):
        with pytest.raises(ConfigError, match="The queue's name"):
            await ledger.write(operation, name)
    with pytest.raises(ConfigError, match="The queue's name"):
        await ledger.write(queues.scale, name, 1)


# --- what is kept


async def test_queue_about_which_nothing_is_decided_has_no_row(ledger: Ledger) -> None:
    assert await stored(ledger) == []
    assert await ledger.write(queues.resume, "agents") == USUAL
    assert await ledger.write(queues.scale, "agents", None) == USUAL
    assert await stored(ledger) == []
    await ledger.write(queues.pause, "agents")
    await ledger.write(queues.scale, "agents", 2)
    await ledger.write(queues.resume, "agents")
    assert len(await stored(ledger)) == 1, "it is still scaled"
    await ledger.write(queues.scale, "agents", None)
    assert await stored(ledger) == []


async def test_what_was_decided_outlives_everybody(ledger: Ledger) -> None:
    await ledger.write(queues.pause, "agents")
    await ledger.write(queues.scale, "other", 4)
    await ledger.database.close()
    await ledger.database.open()
    assert await ledger.read(queues.list_settings) == {
        "agents": QueueSetting("agents", True, None),
        "other": QueueSetting("other", False, 4),
    }


async def test_decision_is_told_to_who_listens(ledger: Ledger) -> None:
    told = threading.Event()
    with ledger.database.subscribe(told.set):
        for decide in (queues.pause, queues.resume):
            told.clear()
            await ledger.write(decide, "agents")
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
        for limit in (3, None):
            told.clear()
            await ledger.write(queues.scale, "agents", limit)
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


async def test_decisions_made_at_once_all_count(ledger: Ledger) -> None:
    """Each of one thread's is about its own aspect; the row comes and goes under them."""
    start = threading.Barrier(4)

    def decide(*decisions: Callable[[], Operation[QueueSetting]]) -> None:
        start.wait()
        for _ in range(25):
            for decision in decisions:
                ledger.database.write_blocking(decision)

    def pause() -> Operation[QueueSetting]:
        return queues.pause("agents")

    def resume() -> Operation[QueueSetting]:
        return queues.resume("agents")

    def scale() -> Operation[QueueSetting]:
        return queues.scale("agents", 7)

    def unscale() -> Operation[QueueSetting]:
        return queues.scale("agents", None)

    pausing = [asyncio.to_thread(decide, resume, pause) for _ in range(2)]
    scaling = [asyncio.to_thread(decide, unscale, scale) for _ in range(2)]
    await asyncio.gather(*pausing, *scaling)
    assert await setting(ledger) == QueueSetting("agents", True, 7)


# --- listing


async def test_queues_are_listed_with_runs_settings_and_live_workers(ledger: Ledger) -> None:
    await ledger.in_state(RunState.COMPLETED, queue="busy")
    await ledger.write(workers.register, "dead", "dead", 1, {"busy": 9, "gone": 9}, 1.0)
    ledger.clock.advance(2)
    await ledger.write(workers.remove, "w1")
    await ledger.write(workers.register, "a", "a", 1, {"busy": 5}, LEASE_SECONDS)
    await ledger.write(workers.register, "b", "b", 1, {"busy": 20, "idle": 1}, LEASE_SECONDS)
    await ledger.insert(queue="busy")
    await ledger.insert(queue="unserved")
    await ledger.write(queues.pause, "early")
    await ledger.write(queues.scale, "busy", 3)
    assert await ledger.read(reads.list_queues) == [
        QueueRecord("busy", {"available": 1, "completed": 1}, False, 3, {"a": 5, "b": 20}),
        QueueRecord("early", {}, True, None, {}),
        QueueRecord("idle", {}, False, None, {"b": 1}),
        QueueRecord("unserved", {"available": 1}, False, None, {}),
    ]
