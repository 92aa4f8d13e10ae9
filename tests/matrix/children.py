"""What happens in the processes of the matrix: as in `crash.children`, with other faults."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from crash.children import (
    Strike,
    begin,
    decide,
    die,
    enqueued,
    finish,
    let_leases_end,
    observe_at,
    serve,
    work,
    work_until_final,
)
from crash.jobs import JOBS
from crash.scenarios import KEY, SCENARIOS
from crash.world import World
from durably import LedgerUnavailable, RunState, boundaries
from matrix.clocks import go_by_clock, set_clock
from matrix.cuts import Commits, Lost
from matrix.disks import disk_of
from matrix.versions import OnChange, next_version
from support.pg_proxy import PgProxy

HELD_UP_SECONDS = 2.0
ENDS = (RunState.COMPLETED, RunState.DISCARDED)

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


def connection_cut(folder: Path, scenario: str, lost: Lost, strike: Strike | None) -> None:
    """Work until the run's end; the strike's commit loses its connection, its outcome unknown.

    Notes the commits that there were, for others to strike at.
    """
    begin(folder, "connection_cut")
    world = World(folder)
    with PgProxy(world.url) as proxy:
        world.url = proxy.url
        commits = Commits(proxy, strike, lost)
        boundaries.observe(commits.note)
        commits.look_at_every_commit()
        asyncio.run(_work_and_decide(world, scenario, commits))
    (folder / "commits.json").write_text(json.dumps(commits.seen))
    if commits.has_cut:
        world.record("struck", at=str(strike))


async def _work_and_decide(world: World, scenario: str, commits: Commits) -> None:
    """As any client does who asks again where nobody heard whether it was committed."""
    app, agent = SCENARIOS[scenario].app(world)
    async with app:
        commits.doing = "enqueue"
        run = await enqueued(app, agent)
        commits.doing = None
        async with app.worker():
            commits.doing = "dispatch"
            while True:
                with suppress(LedgerUnavailable):
                    await finish(run, world)
                    break
                await asyncio.sleep(0.1)
            commits.doing = None


def disk_full(folder: Path, scenario: str, strike: Strike) -> None:
    """Work until the run's end; from the strike on the disk has no room, for several writes."""
    begin(folder, "disk_full")
    world = World(folder)
    disk = disk_of(world)
    act = observe_at(strike, disk.fill)

    def observe(name: str) -> None:
        act(name)
        disk.note(name)

    boundaries.observe(observe)
    asyncio.run(work_until_final(folder, scenario))
    if disk.refused():
        world.record("struck", at=str(strike))


def locked_out(folder: Path, scenario: str, strike: Strike) -> None:
    """Work until the run's end; at the strike another process asks for the whole file."""
    begin(folder, "locked_out")
    world = World(folder)

    def step() -> None:
        world.record("struck", at=str(strike))
        give_up_at = time.monotonic() + HELD_UP_SECONDS
        while not world.gate_is_open() and time.monotonic() < give_up_at:
            time.sleep(0.02)  # Until it has it: it cannot while this process writes.

    boundaries.observe(observe_at(strike, step))
    asyncio.run(work_until_final(folder, scenario))


def locker(folder: Path, seconds: float) -> None:
    """Lock the file of the ledger once somebody is struck, and hold it for so long."""
    begin(folder, "locker")
    world = World(folder)
    while not world.records("struck"):
        time.sleep(0.02)
    path = world.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=300, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        world.open_gate()
        time.sleep(seconds)
        connection.execute("ROLLBACK")
        world.record("unlocked")


def deployed_anew(folder: Path, on_change: OnChange) -> None:
    """Take over from a worker that is dead, with the next version of the agent."""
    begin(folder, "deployed_anew")
    world = World(folder)
    app = next_version(world, on_change)

    async def work_on() -> None:
        async with app:
            let_leases_end(world)
            run = await app.get(KEY)
            async with app.worker():
                while (await run.refresh()).state not in ENDS:
                    waits = (run.record.waiting_on or {}).get("kind")
                    if waits == "change":
                        world.record("waits for acceptance", paid=world.paid())
                        await run.retry()
                    elif waits is not None:
                        await decide(run, world)
                    await asyncio.sleep(0.02)

    asyncio.run(work_on())
