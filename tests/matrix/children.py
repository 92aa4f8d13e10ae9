"""What happens in the processes of the matrix: as in `crash.children`, with other faults."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from crash.children import Strike, begin, die, observe_at, serve, work, work_until_final
from crash.jobs import JOBS
from crash.world import World
from durably import boundaries
from matrix.clocks import go_by_clock, set_clock

LOOKS_SECONDS = 2.5
"""Within it, another worker looks for dead ones twice."""


def bystander(folder: Path, job: str, **options: Any) -> None:
    """A worker that looks after the runs of dead ones, by the world's clock."""
    begin(folder, "bystander")
    world = World(folder)
    go_by_clock(world)
    app, _ = JOBS[job](world)
    asyncio.run(serve(world, app, **options))


def ahead(folder: Path, job: str, seconds: float, **options: Any) -> None:
    """A worker whose clock is ahead of the others'."""
    begin(folder, "ahead")
    world = World(folder)
    go_by_clock(world, seconds)
    app, _ = JOBS[job](world)
    asyncio.run(serve(world, app, **options))


def clock_set(folder: Path, scenario: str, strike: Strike, seconds: float) -> None:
    """Work until the run's end; at the strike the clock is set, and others have time to look."""
    begin(folder, "clock_set")
    world = World(folder)
    go_by_clock(world)

    def step() -> None:
        set_clock(world, seconds)
        world.record("struck", at=str(strike))
        time.sleep(LOOKS_SECONDS)

    boundaries.observe(observe_at(strike, step))
    asyncio.run(work_until_final(folder, scenario))


def clock_set_and_killed(
    folder: Path, scenario: str, strike: Strike, seconds: float, lease_seconds: float
) -> None:
    """Work until the strike: there the clock is set, and the process killed at once."""
    begin(folder, "clock_set_and_killed")
    world = World(folder)
    go_by_clock(world)

    def step() -> None:
        set_clock(world, seconds)
        die(folder, strike)

    boundaries.observe(observe_at(strike, step))
    asyncio.run(work_until_final(folder, scenario, lease_seconds))


def successor(folder: Path, scenario: str) -> None:
    """Take over from a worker that is dead, and finish."""
    begin(folder, "successor")
    go_by_clock(World(folder))
    asyncio.run(work(folder, scenario))
