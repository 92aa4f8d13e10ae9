"""Notices that the ledger's clock was set, by comparing it with one that only ever goes on.

Owns the comparison; what a worker does about leases then is `workers`'s and `runs`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from durably.ledger.columns import moment
from durably.ledger.operations import Operation, fetch_one


@dataclass(frozen=True, slots=True)
class Reading:
    """What the ledger's clock said once.

    Attributes:
        at: the ledger's time.
        before, after: seconds of the steady clock, between which that was.
    """

    at: datetime
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How a worker knows the ledger's time to go.

    Attributes:
        clock: seconds that nobody sets.
        last: what the ledger's clock said at the last heartbeat; None before the first.
        tolerance_seconds: how far the clock may be set without anybody minding.
    """

    clock: Callable[[], float]
    last: Reading | None
    tolerance_seconds: float

    def step(self, now: Reading) -> float:
        """By how many seconds the clock was set since `last`, forward or (negative) back; 0.0 if
        it went as it should, as far as anybody can tell.
        """
        if self.last is None:
            return 0.0
        went = (now.at - self.last.at).total_seconds()
        most, least = now.after - self.last.before, now.before - self.last.after
        step = max(went - most, 0.0) + min(went - least, 0.0)
        return step if abs(step) > self.tolerance_seconds else 0.0


def read_time(clock: Callable[[], float]) -> Operation[Reading]:
    """What the ledger's clock says now."""
    before = clock()
    row = yield from fetch_one("time_now")
    assert row is not None, "there is always a time"
    return Reading(moment(row["now"]), before, clock())


def find_step(pace: Pace) -> Operation[float]:
    """By how many seconds the clock was set since the last heartbeat; 0.0 if it was not."""
    return pace.step((yield from read_time(pace.clock)))
