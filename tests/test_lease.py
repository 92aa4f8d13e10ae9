"""A worker's lease: an attempt that saw it end does not get it back."""

import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from crash.processes import eventually
from durably.execution.lease import WorkerLease
from durably.ledger.database import Database

LEASE_SECONDS = 0.2


class StallingLedger:
    """A ledger whose heartbeats are not written while it stalls."""

    clock = None

    def __init__(self) -> None:
        self.flowing = threading.Event()

    async def write(self, *_: Any) -> None:
        return

    def write_blocking(self, *_: Any) -> None:
        self.flowing.wait()


@pytest.fixture
def ledger() -> StallingLedger:
    return StallingLedger()


def lease_on(ledger: StallingLedger, on_beat: Callable[[], None] = lambda: None) -> WorkerLease:
    return WorkerLease(
        cast("Database", ledger),
        worker_id="w1",
        name="w1",
        pid=1,
        queues={},
        lease_seconds=LEASE_SECONDS,
        on_beat=on_beat,
    )


async def test_attempt_does_not_regain_a_lease_that_lapsed(ledger: StallingLedger) -> None:
    """Frozen, then continued: the heartbeat may be written before the attempt looks again."""
    lease = lease_on(ledger)
    await lease.start()
    held = lease.hold()
    eventually("lapsed", lambda: not lease.valid())
    ledger.flowing.set()
    eventually("alive again", lease.valid)
    assert not held(), "its run may be another attempt's by now"
    eventually("a new attempt may act", lambda: lease.hold()())
    await lease.stop()


async def test_worker_whose_heartbeat_is_late_knows(ledger: StallingLedger) -> None:
    """It judges no other worker then: the ledger was busy for all of them."""
    lease = lease_on(ledger)
    await lease.start()
    eventually("late", lambda: not lease.steady)
    ledger.flowing.set()
    eventually("in time again, for a while", lambda: lease.steady)
    await lease.stop()
