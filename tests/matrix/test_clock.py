"""The clock is set by an hour, forward or back, in the middle of runs; or two clocks disagree."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from crash import children as crashing
from crash.children import Strike
from crash.grounds import Grounds
from crash.jobs import JOBS
from crash.processes import Processes, ended, eventually, is_alive
from crash.promises import Moment, check, check_after_many
from crash.scenarios import ALONE, MIXED
from crash.undisturbed import EVERYTHING, Undisturbed, check_reached, each, layer, logs
from crash.world import World
from matrix import children
from matrix.clocks import HOUR, set_clock
from matrix.record import proved
from support.sample import longer

pytestmark = pytest.mark.timeout(3600)

FORWARD, BACK = "clock set forward by an hour", "clock set back by an hour"
STEPS = {FORWARD: HOUR, BACK: -HOUR}

AT_ONCE = 4
"""How many runs are struck side by side: most of the time is waiting for others to look."""


@pytest.mark.parametrize(
    ("fault", "grounds"),
    [(FORWARD, "sqlite"), longer(FORWARD, "postgres"), longer(BACK, "sqlite"), (BACK, "postgres")],
    indirect=["grounds"],
)
def test_clock_that_is_set_takes_no_run_from_its_healthy_worker(
    fault: str, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    """Nor does anything happen twice; another worker is looking for dead ones meanwhile."""
    undisturbed = Undisturbed(MIXED, grounds, tmp_path / "runs", processes)

    def strike_at(strike: Strike) -> bool:
        world = undisturbed.world(str(strike).replace(":", "_"))
        args = world.folder, MIXED.name
        bystander = processes.start(children.bystander, *args, queues={"elsewhere": 1})
        eventually("somebody looks", lambda: world.records("ready") or not is_alive(bystander))
        worker = processes.start(children.clock_set, *args, strike, STEPS[fault])
        assert ended(worker) == 0, logs(world.folder)
        bystander.kill()
        end, struck = Moment.of(world), bool(world.records("struck"))
        assert [attempt["outcome"] for attempt in end.attempts] == ["completed"]
        check_after_many(MIXED, undisturbed.end, end, crashes=0)
        if struck:
            proved(fault, moment=layer(strike), policy=MIXED.shown, database=grounds.dialect)
        set_clock(world, 0.0)
        undisturbed.clear(world)
        return struck

    first = {strike.name: strike for strike in reversed(undisturbed.strikes)}
    strikes = list(first.values()) if EVERYTHING else [first["effect:before"]]
    check_reached(dict(zip(strikes, each(strikes, strike_at, at_once=AT_ONCE), strict=True)))


@pytest.mark.parametrize(
    ("fault", "grounds"),
    [
        *(longer(FORWARD, name) for name in ("sqlite", "postgres")),
        (BACK, "sqlite"),
        longer(BACK, "postgres"),
    ],
    indirect=["grounds"],
)
def test_dead_worker_is_noticed_although_the_clock_was_set(
    fault: str, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    """Within leases, not in an hour; the lease is one second here."""
    scenario = ALONE["reconcile"]
    undisturbed = Undisturbed(scenario, grounds, tmp_path / "runs", processes)
    world = undisturbed.world("dead")
    args = world.folder, scenario.name
    bystander = processes.start(children.bystander, *args, queues={"elsewhere": 1}, lease=1.0)
    eventually("somebody looks", lambda: world.records("ready"))
    strike = Strike("effect:after")
    dying = processes.start(children.clock_set_and_killed, *args, strike, STEPS[fault], 1.0)
    assert ended(dying) == -signal.SIGKILL, logs(world.folder)
    struck = Moment.of(world)
    taken = "SELECT 1 FROM durably_runs WHERE state = 'available'"
    eventually("taken over", lambda: world.database.rows(taken))
    bystander.kill()
    ended(bystander)
    assert processes.run(children.successor, *args) == 0, logs(world.folder)
    check(scenario, undisturbed.end, struck, Moment.of(world))
    moment = "a process is killed then"
    proved(fault, moment=moment, policy=scenario.shown, database=grounds.dialect)
    set_clock(world, 0.0)
    undisturbed.clear(world)


@pytest.mark.parametrize("grounds", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("job", "policy", "waited"),
    [
        longer("gated async", "READ", 2),
        longer("gated in a thread", "READ", 2),
        ("gated once", "once, ask", 1),
    ],
)
def test_worker_an_hour_ahead_takes_runs_but_repeats_no_call(
    job: str, policy: str, waited: int, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    """It takes a healthy worker for dead: that one's tool still ends, and its word settles it."""
    world = grounds.world(tmp_path / "world")
    asyncio.run(_enqueue(world, job))
    first = processes.start(crashing.worker, world.folder, job)
    eventually("at the gate", lambda: world.records("at the gate"))
    second = processes.start(children.ahead, world.folder, job, HOUR)
    lost = "SELECT 1 FROM durably_attempts WHERE outcome = 'lost'"
    eventually("taken", lambda: world.database.rows(lost))
    world.open_gate()
    over = "SELECT 1 FROM durably_runs WHERE state = 'completed'"
    eventually("completed", lambda: world.database.rows(over))
    for worker in (first, second):
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)
        assert ended(worker) == 0, logs(world.folder)
    happened = {key.rpartition(":")[2]: times for key, times in Moment.of(world).happened.items()}
    assert happened["3.0"] == 1
    assert 1 <= happened["1.0"] <= waited
    proved(
        "workers' clocks an hour apart", moment="effect", policy=policy, database=grounds.dialect
    )


async def _enqueue(world: World, job: str) -> None:
    app, agent = JOBS[job](world)
    async with app:
        await app.enqueue(agent, "Take your time.")
