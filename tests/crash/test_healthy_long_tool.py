"""A healthy tool call that takes several leases is run once, by one worker, in one attempt."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crash import children
from crash.databases import instant
from crash.grounds import Grounds
from crash.jobs import JOBS
from crash.processes import Processes, eventually
from crash.promises import Moment
from crash.undisturbed import each
from crash.world import World
from matrix.record import proved

pytestmark = pytest.mark.timeout(1800)

FAULTS = {
    "async": "tool slower than the lease",
    "in a thread": "tool slower than the lease",
    "on the loop": "tool blocks the event loop",
}
KINDS = tuple(FAULTS)

LEASES_PER_TOOL = 4

LEASES = (1.0, 4.0, 16.0)
"""Seconds. The first will do, unless the machine is so slow that heartbeats are late by it."""


def test_tool_of_several_leases_is_run_once_in_one_attempt(
    grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    """Whether it sleeps, blocks a thread or blocks the event loop; another worker is looking."""

    def run(kind: str) -> bool:
        for lease_seconds in LEASES:
            world = grounds.world(tmp_path / f"{kind} {lease_seconds:g}")
            oldest = _carry_out(world, f"long {kind}", lease_seconds, processes)
            end = Moment.of(world)
            print(f"{kind}: {LEASES_PER_TOOL} leases, oldest heartbeat {oldest:.2f} s")
            if oldest < lease_seconds:
                assert [attempt["outcome"] for attempt in end.attempts] == ["completed"]
                assert list(end.happened.values()) == [1]
                assert end.paid == 2
                fault, moment = FAULTS[kind], "tool"
                proved(fault, moment=moment, policy="once, ask", database=grounds.dialect)
                return True
        raise AssertionError("heartbeats were late even with a long lease")

    each(KINDS, run, at_once=len(KINDS))


def _carry_out(world: World, job: str, lease_seconds: float, processes: Processes) -> float:
    """Let two workers have the run; returns how old a heartbeat of the one that has it became."""
    (world.folder / "seconds").write_text(str(LEASES_PER_TOOL * lease_seconds))
    asyncio.run(_enqueue(world, job))
    args = world.folder, job
    started = [
        processes.start(children.worker, *args, lease_seconds=lease_seconds) for _ in range(2)
    ]
    oldest = 0.0

    def look() -> bool:
        nonlocal oldest
        state, age = _state_and_age(world)
        oldest = max(oldest, age)
        return state in ("completed", "suspended")

    eventually("the run's end", look)
    for process in started:
        process.kill()
    return oldest


async def _enqueue(world: World, job: str) -> None:
    app, agent = JOBS[job](world)
    async with app:
        await app.enqueue(agent, "Take your time.")


def _state_and_age(world: World) -> tuple[str, float]:
    sql = """SELECT r.state, w.heartbeat_at FROM durably_runs r
             LEFT JOIN durably_workers w ON w.id = r.worker_id"""
    (run,) = world.database.rows(sql)
    beat = run["heartbeat_at"]
    return run["state"], (datetime.now(UTC) - instant(beat)).total_seconds() if beat else 0.0
