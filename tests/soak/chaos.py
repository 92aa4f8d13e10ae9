"""What is done to a site and when, all drawn from a seed: the same seed, the same schedule.

Owns the schedule; carrying it out is `arena`'s.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from crash.children import Strike

LEASE_SECONDS = 4.0

WORKER_GAP_SECONDS = 4.0
DATABASE_GAP_SECONDS = 12.0
PEOPLE_GAP_SECONDS = 15.0
"""On average, from one action of the kind to the next."""

ON_WORKERS = {"kill": 4, "terminate": 2, "freeze": 2, "freeze past the lease": 2, "kill all": 0.4}
ON_DATABASE = {
    "sqlite": {"hold the write lock": 3, "die while writing": 2},
    "postgres": {
        "restart": 1, "restart at once": 3, "kill the server": 3, "freeze the server": 2,
        "cut connections": 3,
    },
}  # fmt: skip
ON_PEOPLE = {"kill the client": 1, "kill the person": 1}

STRUCK_SHARE = 0.6
"""Of the workers, so many meet their end, or stop, at a boundary of their own code."""

STRIKES = (
    *("checkpoint", "intent", "outcome", "settle", "commit", "model", "tool", "effect", "wait"),
    *("child", "end", "expiry", "delta", "job"),
    *("transaction:before_commit", "transaction:after_commit"),
)
FREEZING_SHARE = 0.3


@dataclass(frozen=True)
class Action:
    """Something that is done to a site.

    Attributes:
        at: seconds after the beginning.
        worker: the number of the worker that it is done to, if it is done to one.
        seconds: how long it lasts, or until what it ends is started again.
    """

    at: float
    what: str
    worker: int
    seconds: float

    def __str__(self) -> str:
        whom = f" worker {self.worker}" if self.what in ON_WORKERS else ""
        return f"{self.at:7.2f} s  {self.what}{whom}, {self.seconds:.2f} s"


def schedule(
    seed: int, dialect: str, seconds: float, workers: int, pace: float = 1.0
) -> list[Action]:
    """All that is done to one site, in its order."""
    actions = _schedule(seed, dialect, seconds / pace, workers)
    return [replace(a, at=a.at * pace, seconds=a.seconds * pace) for a in actions]


def _schedule(seed: int, dialect: str, seconds: float, workers: int) -> list[Action]:
    draw = random.Random(f"{seed} {dialect}")
    kinds = [
        (ON_WORKERS, WORKER_GAP_SECONDS),
        (ON_DATABASE[dialect], DATABASE_GAP_SECONDS),
        (ON_PEOPLE, PEOPLE_GAP_SECONDS),
    ]
    actions: list[Action] = []
    for weights, gap in kinds:
        for at in _moments(draw, gap, seconds):
            what = draw.choices([*weights], [*weights.values()])[0]
            worker = draw.randrange(workers)
            actions.append(Action(at, what, worker, _seconds_of(draw, what)))
    return sorted(actions, key=lambda action: action.at)


def summary(actions: list[Action]) -> str:
    """How often each thing is done."""
    counts = Counter(action.what for action in actions)
    return ", ".join(f"{what} {times}" for what, times in counts.most_common())


def strike_of(seed: int, dialect: str, worker: int, start: int) -> tuple[Strike | None, bool]:
    """Where the n-th start of a worker is hit, if it is; and whether it stops there, not dies."""
    draw = random.Random(f"{seed} {dialect} {worker} {start}")
    if draw.random() > STRUCK_SHARE:
        return None, False
    name, nth = draw.choice(STRIKES), round(draw.expovariate(1 / 40)) + 1
    whole = name if ":" in name else f"{name}:{draw.choice(['before', 'after'])}"
    return Strike(whole, nth), draw.random() < FREEZING_SHARE


def _moments(draw: random.Random, gap: float, seconds: float) -> Iterator[float]:
    at = draw.expovariate(1 / gap)
    while at < seconds:
        yield at
        at += draw.expovariate(1 / gap)


def _seconds_of(draw: random.Random, what: str) -> float:
    match what:
        case "freeze":
            return draw.uniform(0.1, 0.8) * LEASE_SECONDS
        case "freeze past the lease":
            return draw.uniform(1.2, 3.0) * LEASE_SECONDS
        case "freeze the server" | "hold the write lock":
            return draw.uniform(0.3, 1.5 * LEASE_SECONDS)
        case _:
            return draw.choice([0.0, draw.uniform(0, 2.0)])
