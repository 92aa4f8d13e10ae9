"""The ledger's clock is set by an hour: no healthy worker dies of it, and no dead one lives on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durably.ledger import attempts, workers
from durably.ledger.stepping import Pace, Reading
from durably.records import RunRecord
from support.ledgers import LEASE_SECONDS, Ledger

HOUR = 3600.0
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STEPS = pytest.mark.parametrize("hours", [1, -1])


class Beating:
    """A worker that looks at the ledger's clock with each heartbeat, as `WorkerLease` does."""

    def __init__(self, ledger: Ledger, worker_id: str) -> None:
        self._ledger = ledger
        self._id = worker_id
        self._seconds = 0.0
        self._last: Reading | None = None
        self.steps: list[float] = []

    @property
    def pace(self) -> Pace:
        return Pace(lambda: self._seconds, self._last, LEASE_SECONDS / 3)

    def wait(self, seconds: float) -> None:
        """Time goes by for this worker."""
        self._seconds += seconds

    async def beat(self) -> None:
        row = self._id, self._id, 1, {"agents": 20}, LEASE_SECONDS
        self._last, step = await self._ledger.write(workers.beat, *row, self.pace)
        self.steps.append(step)

    async def rescue(self) -> list[RunRecord]:
        return await self._ledger.write(attempts.rescue, self.pace)


def pass_time(ledger: Ledger, seconds: float, *beating: Beating) -> None:
    ledger.clock.advance(seconds)
    for worker in beating:
        worker.wait(seconds)


@STEPS
async def test_healthy_worker_keeps_its_runs_when_the_clock_is_set(
    ledger: Ledger, hours: int
) -> None:
    """Health is not progress, nor what a clock says: promise 11."""
    healthy, looking = Beating(ledger, "healthy"), Beating(ledger, "looking")
    run = await ledger.executing("healthy")
    await healthy.beat()
    await looking.beat()
    pass_time(ledger, 5.0, healthy, looking)
    ledger.clock.advance(hours * HOUR)
    assert await looking.rescue() == [], "before anybody's next heartbeat"
    await looking.beat()
    assert looking.steps == [0.0, hours * HOUR]
    assert await looking.rescue() == [], "before the healthy worker's own"
    for _ in range(10):
        pass_time(ledger, LEASE_SECONDS / 3, healthy, looking)
        await looking.beat()
        assert await looking.rescue() == []
        await healthy.beat()
    assert (await ledger.get(run)).claim == run.claim


@STEPS
async def test_dead_worker_is_noticed_within_two_leases_when_the_clock_is_set(
    ledger: Ledger, hours: int
) -> None:
    """Not an hour later: promise 11."""
    looking = Beating(ledger, "looking")
    run = await ledger.executing("dead")
    await looking.beat()
    ledger.clock.advance(hours * HOUR)
    await looking.beat()
    for _ in range(4):
        pass_time(ledger, LEASE_SECONDS / 3, looking)
        await looking.beat()
    assert [found.key for found in await looking.rescue()] == [run.key]


async def test_worker_that_starts_after_the_clock_was_set_back_notices_who_is_dead(
    ledger: Ledger,
) -> None:
    """Nobody was there to notice: the dead worker's last heartbeat is still to come."""
    run = await ledger.executing("dead")
    ledger.clock.advance(-HOUR)
    late = Beating(ledger, "late")
    await late.beat()
    pass_time(ledger, LEASE_SECONDS + 1, late)
    await late.beat()
    assert [found.key for found in await late.rescue()] == [run.key]


async def test_dead_worker_does_not_live_longer_because_others_start(ledger: Ledger) -> None:
    run = await ledger.executing("dead")
    others = [Beating(ledger, f"late-{number}") for number in range(4)]
    for late in others:
        await late.beat()
        pass_time(ledger, LEASE_SECONDS / 3, *others)
    assert [found.key for found in await others[-1].rescue()] == [run.key]


@pytest.mark.parametrize(
    ("went", "before", "after", "step"),
    [
        (10.0, 10.0, 10.1, 0.0),
        (25.0, 10.0, 30.0, 0.0),  # The ledger was slow to answer: that is no step.
        (3610.0, 10.0, 10.0, 3600.0),
        (-3590.0, 10.0, 10.0, -3600.0),
        (15.0, 10.0, 10.0, 0.0),  # Less than anybody minds.
    ],
)
def test_slow_answer_is_no_step(went: float, before: float, after: float, step: float) -> None:
    first = Reading(START, 0.0, 0.0)
    pace = Pace(lambda: 0.0, first, tolerance_seconds=10.0)
    assert pace.step(Reading(START + timedelta(seconds=went), before, after)) == step
