"""How much is measured: everything, or as little as shows that it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Amounts.

    Attributes:
        turns: how often everybody's turn comes.
        starts: jobs that are enqueued one by one.
        starting_seconds: after which no more of them are.
        jobs: jobs that are drained.
        limit: jobs at once.
        many: jobs that are enqueued at once.
        ended, suspended: runs of the large ledger.
        looks: how often each question is put to a ledger.
        ends: how often a worker is killed, and told to leave.
        waiting: suspended runs beside which a worker's memory is read.
    """

    turns: int = 3
    starts: int = 100
    starting_seconds: float = 20.0
    jobs: int = 2_000
    limit: int = 50
    many: int = 10_000
    ended: int = 1_000_000
    suspended: int = 100_000
    looks: int = 500
    ends: int = 5
    waiting: int = 10_000


QUICK = Sizes(1, 20, 5.0, 300, 50, 1_000, 20_000, 2_000, 100, 1, 500)
