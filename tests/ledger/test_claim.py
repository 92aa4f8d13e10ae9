"""Claiming: in order, only what is due, and never one attempt to two workers."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from durably.ledger import attempts, reads
from durably.ledger.columns import timestamp
from durably.ledger.written import Step
from durably.lifecycle import RunState
from durably.records import RunRecord
from support.ledgers import Ledger


async def keys(ledger: Ledger, limit: int = 100, queue: str = "agents") -> list[str]:
    return [run.key for run in await ledger.write(attempts.claim, "w1", queue, limit)]


async def test_claims_come_by_priority_then_time_then_id(ledger: Ledger) -> None:
    await ledger.insert("later", priority=5, delay_seconds=20.0)
    await ledger.insert("sooner", priority=5, delay_seconds=10.0)
    await ledger.insert("now", priority=5)
    await ledger.insert("twin 1", priority=3, delay_seconds=15.0)
    await ledger.insert("twin 2", priority=3, delay_seconds=15.0)
    await ledger.insert("last", priority=9)
    await ledger.insert("first", priority=0, delay_seconds=25.0)
    ledger.clock.advance(60)
    expected = ["first", "twin 1", "twin 2", "now", "sooner", "later", "last"]
    assert await keys(ledger) == expected


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_claims_of_any_size_come_in_the_same_order(ledger: Ledger, limit: int) -> None:
    """Also where what is due by time outnumbers what one claim takes."""
    for n, (priority, delay) in enumerate([(9, 1.0), (5, 2.0), (0, 3.0), (5, 2.0), (0, 0.0)]):
        await ledger.insert(f"r{n}", priority=priority, delay_seconds=delay)
    ledger.clock.advance(60)
    claimed: list[str] = []
    while found := await keys(ledger, limit):
        assert len(found) <= limit
        claimed += found
    assert claimed == ["r4", "r2", "r1", "r3", "r0"]


async def test_retryable_runs_are_claimed_by_the_same_order(ledger: Ledger) -> None:
    for key, priority, delay in (("low", 9, 1.0), ("high", 0, 5.0)):
        run = await ledger.claim(await ledger.insert(key, priority=priority))
        await ledger.write(attempts.fail, run.claim, "boom", "", delay, Step())
    ledger.clock.advance(60)
    assert [await keys(ledger, 1) for _ in range(3)] == [["high"], ["low"], []]


async def test_run_is_not_claimed_before_it_is_due(ledger: Ledger) -> None:
    await ledger.worker()
    run = await ledger.insert(delay_seconds=60.0)
    ledger.clock.advance(59.999)
    assert await keys(ledger) == []
    assert await ledger.write(attempts.claim_one, "w1", run.id) is None
    ledger.clock.advance(0.001)
    assert await keys(ledger) == [run.key]


async def test_failed_run_is_not_claimed_before_its_backoff_is_over(ledger: Ledger) -> None:
    run = await ledger.claim(await ledger.insert())
    run = await ledger.write(attempts.fail, run.claim, "boom", "", 30.0, Step())
    ledger.clock.advance(29.999)
    assert await keys(ledger) == []
    assert await ledger.write(attempts.claim_one, "w1", run.id) is None
    ledger.clock.advance(0.001)
    assert await keys(ledger) == [run.key]


async def test_scheduled_at_wins_over_a_delay(ledger: Ledger) -> None:
    due = ledger.clock.now + timedelta(seconds=10)
    run = await ledger.insert(scheduled_at=timestamp(due), delay_seconds=99.0)
    assert (run.state, run.scheduled_at) == (RunState.SCHEDULED, due)
    past = timestamp(ledger.clock.now - timedelta(seconds=10))
    assert (await ledger.insert(scheduled_at=past)).state is RunState.AVAILABLE


async def test_claim_takes_no_more_than_its_limit_and_only_its_queue(ledger: Ledger) -> None:
    for n in range(5):
        await ledger.insert(f"r{n}")
    await ledger.insert("other", queue="other")
    assert await keys(ledger, 3) == ["r0", "r1", "r2"]
    assert await keys(ledger, 3) == ["r3", "r4"]
    assert await keys(ledger, 3) == []
    assert await keys(ledger, 3, "other") == ["other"]


async def test_next_due_says_when_there_is_something_to_claim(ledger: Ledger) -> None:
    assert await ledger.read(reads.next_due, "agents") == (None, ledger.clock.now)
    later = await ledger.insert(delay_seconds=60.0)
    sooner = await ledger.insert(delay_seconds=30.0)
    assert await ledger.read(reads.next_due, "agents") == (sooner.scheduled_at, ledger.clock.now)
    ledger.clock.advance(30)
    assert await keys(ledger) == [sooner.key]
    assert (await ledger.read(reads.next_due, "agents"))[0] == later.scheduled_at
    await ledger.insert()
    assert await ledger.read(reads.next_due, "agents") == (ledger.clock.now, ledger.clock.now)


async def test_threads_never_claim_one_run_twice(ledger: Ledger) -> None:
    inserted = {(await ledger.insert()).key for _ in range(60)}
    start = threading.Barrier(4)

    def claim_all(worker_id: str) -> list[RunRecord]:
        claimed: list[RunRecord] = []
        start.wait()
        while found := ledger.database.write_blocking(attempts.claim, worker_id, "agents", 3):
            claimed += found
        return claimed

    found = await asyncio.gather(*(asyncio.to_thread(claim_all, f"w{n}") for n in range(4)))
    claimed = [run.key for part in found for run in part]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) == inserted
    assert {run.attempt for part in found for run in part} == {1}


async def test_two_claims_of_one_run_at_once_give_it_to_one(ledger: Ledger) -> None:
    run = await ledger.insert()
    claims = (ledger.write(attempts.claim_one, f"w{n}", run.id) for n in range(10))
    claimed = await asyncio.gather(*claims)
    assert sum(c is not None for c in claimed) == 1
