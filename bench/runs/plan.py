"""What is measured, of whom, and how often: everything, or as little as shows that it works."""

from __future__ import annotations

from dataclasses import dataclass, replace

from runs.contestant import CONTESTANTS, Contestant
from runs.workload import Policy, Workload

OURS = ("bare", "durably-sqlite", "durably-postgres")

NEAR = (
    *("bare", "hooks", "pause"),
    *("least-sqlite", "durably-sqlite", "least-postgres", "durably-postgres"),
)
"""One after the other: a machine's pace changes within minutes, and ratios with it."""


@dataclass(frozen=True)
class Round:
    """A workload, which contestants do in turns.

    Attributes:
        turns: how often everybody's comes.
        names: of those who do it; None: all.
        within: seconds that one process may take in all.
    """

    workload: Workload
    turns: int
    names: tuple[str, ...] | None = None
    within: float = 90.0

    @property
    def contestants(self) -> list[Contestant]:
        """Where a policy is what the round is about: bare, and those who can tell it apart."""
        policy = self.workload.policy
        asked = [CONTESTANTS[name] for name in self.names or CONTESTANTS]
        found = [one for one in asked if one.only in (None, policy)]
        if policy == "read":
            return found
        return [one for one in found if one.name == "bare" or policy in one.policies]


@dataclass(frozen=True)
class Plan:
    """All rounds, those first that the targets need; and how many seconds they may take."""

    rounds: tuple[Round, ...]
    seconds: float
    counted: tuple[Policy, ...]
    """Policies whose commits a step are counted."""

    waiting: int
    """Runs whose memory is measured while they wait for their model."""

    calls: tuple[tuple[Policy, int], ...]
    """Policies and steps of the runs whose function calls are counted."""


READ_50 = Workload("read-50", concurrency=50, runs=200, seconds=5)
ONCE_50 = replace(READ_50, name="once-50", policy="once")
READ_1 = Workload("read-1", concurrency=1, runs=40, seconds=4)
READ_500 = Workload("read-500", concurrency=500, runs=1000, seconds=8)
STEPS_50 = Workload("steps-50", steps=50, concurrency=1, runs=8, seconds=6)
STEPS_200 = Workload("steps-200", steps=200, concurrency=1, runs=2, seconds=6)
STEPS_1000 = Workload("steps-1000", steps=1000, concurrency=1, runs=1, seconds=3)
TRANSACTIONAL_50 = replace(READ_50, name="transactional-50", policy="transactional")
PARALLEL_50 = replace(READ_50, name="parallel-50", tools=3, runs=100)
LARGE_4 = Workload("large-4", size=100_000, concurrency=4, runs=20, seconds=5)
SLOW_50 = Workload("slow-50", latency=0.3, concurrency=50, runs=50, seconds=4)
SLOW_500 = Workload("slow-500", latency=0.3, concurrency=500, runs=500, seconds=4)

FULL = Plan(
    (
        Round(READ_50, 3),
        Round(READ_50, 6, NEAR),
        Round(ONCE_50, 6),
        Round(READ_1, 3),
        Round(READ_1, 3, NEAR),
        Round(READ_500, 2, OURS, within=60),
        Round(STEPS_50, 2, OURS),
        Round(STEPS_1000, 2, OURS, within=150),
        Round(TRANSACTIONAL_50, 2),
        Round(PARALLEL_50, 1),
        Round(SLOW_50, 1),
        Round(LARGE_4, 1, within=60),
        Round(STEPS_200, 1, within=60),
        Round(SLOW_500, 1, within=60),
        Round(READ_500, 1, within=60),
        Round(STEPS_1000, 1, within=150),
    ),
    seconds=78 * 60,
    counted=("read", "idempotent", "once", "transactional"),
    waiting=1000,
    calls=(("read", 10), ("once", 10), ("read", 50), ("read", 500)),
)

QUICK = Plan(
    (
        Round(replace(READ_50, runs=50), 1),
        Round(replace(ONCE_50, runs=50), 1),
        Round(replace(READ_1, runs=5), 1),
        Round(replace(READ_500, runs=500), 1, OURS),
        Round(replace(STEPS_50, runs=1), 1, OURS),
        Round(replace(STEPS_1000, runs=1), 1, OURS),
        Round(replace(TRANSACTIONAL_50, runs=50), 1),
    ),
    seconds=8 * 60,
    counted=("read", "idempotent", "once", "transactional"),
    waiting=200,
    calls=(("read", 10), ("once", 10), ("read", 50)),
)
