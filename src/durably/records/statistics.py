"""How much a ledger has done over a window of time, and what it holds now. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

GROUPS = ("agent", "queue", "model")
"""What statistics can be grouped by."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How some durations are spread, in seconds.

    Attributes:
        count: how many there are; see `Statistics.sampled` for of how many of them the rest is.
        median, p95: half of them, and 95 of 100, were no longer; None if none is known.
    """

    count: int = 0
    median: float | None = None
    p95: float | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """Runs that ended in some time, and what they took until then, over all their attempts.

    Attributes:
        completed, discarded, cancelled: how many ended so.
        failures: their failed attempts.
        crashes: their attempts whose worker died.
        tokens, cost_nanousd: what their own responses took and cost, in billionths of a US dollar
            as far as prices are known; a child run counts for itself, not with its parent.
        wait: from when a run was due to its first attempt; of those that had one.
        execution: the time of all attempts of a run together; of those that had one.
    """

    completed: int = 0
    discarded: int = 0
    cancelled: int = 0
    failures: int = 0
    crashes: int = 0
    tokens: int = 0
    cost_nanousd: int = 0
    wait: Spread = Spread()
    execution: Spread = Spread()

    @property
    def runs(self) -> int:
        """All of them."""
        return self.completed + self.discarded + self.cancelled


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """What ended in a window, of one agent, queue or model, or of all.

    Attributes:
        name: which; None for all, and for runs that no model has answered yet.
        total: over the whole window.
        buckets: one for each part of the window, oldest first; `Statistics.start_of` says when
            each begins.
    """

    name: str | None
    total: Ended
    buckets: list[Ended]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a ledger holds now, and what ended over a window of time.

    Attributes:
        since, until: the window; ``until`` is the database's time when it was asked.
        bucket_seconds: how long each of its parts is.
        by: what ``groups`` are: ``agent``, ``queue`` or ``model``; None: there are none.
        sampled: 1: medians and percentiles are exact. Of more than 20,000 runs in the window they
            are of some, spread evenly over all: one of every so many.
        states: how many runs are in each state now, whatever the filters. Of states that are not
            final exactly; of final ones up to ``counted_to``, which then means: that many or more.
        waiting: how many things wait for a person, by kind, up to ``asked_counted_to``.
        in_doubt: how many calls of runs that are not over are in doubt, up to ``asked_counted_to``.
        total: everything that ended in the window.
        groups: the same by group, the one with most runs first.
    """

    since: datetime
    until: datetime
    bucket_seconds: float
    by: str | None
    sampled: int
    states: dict[str, int]
    waiting: dict[str, int]
    in_doubt: int
    counted_to: int
    asked_counted_to: int
    total: GroupStatistics
    groups: list[GroupStatistics]

    def start_of(self, bucket: int) -> datetime:
        """When a bucket begins, by its place in ``buckets``."""
        return self.since + (self.until - self.since) * bucket / len(self.total.buckets)
