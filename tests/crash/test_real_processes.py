"""Python processes that share nothing: a worker that dies, a script that is run again."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.databases import instant
from crash.grounds import Grounds
from crash.jobs import JOBS
from crash.processes import DEADLINE_SECONDS, Processes, eventually
from crash.promises import Moment, check
from crash.scenarios import ALONE, KEY, PROMPT
from crash.undisturbed import Undisturbed, sample
from crash.world import World
from matrix.record import proved
from support.sample import longer

pytestmark = pytest.mark.timeout(1800)


class Pythons:
    """Starts Python processes on this folder's modules, and ends all of them."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(self, module: str, *args: object, **environment: str) -> subprocess.Popen[str]:
        tests = str(Path(__file__).parents[1])
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, args)],
            env={**os.environ, "PYTHONPATH": tests, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def pythons() -> Iterator[Pythons]:
    started = Pythons()
    yield started
    started.close()


@pytest.mark.parametrize("grounds", [longer("sqlite"), "postgres"], indirect=True)
def test_another_worker_takes_over_from_a_dead_one_within_the_lease(
    grounds: Grounds, tmp_path: Path, processes: Processes, pythons: Pythons
) -> None:
    undisturbed = Undisturbed(ALONE["reconcile"], grounds, tmp_path / "runs", processes)
    world = undisturbed.world("real")

    async def enqueue() -> None:
        app, agent = JOBS["reconcile"](world)
        async with app:
            await app.enqueue(agent, PROMPT, key=KEY)

    asyncio.run(enqueue())
    worker = "crash.worker_process", world.folder, "reconcile", "--lease", 1
    dying = pythons.start(*worker, "--strike", "effect:after#1")
    eventually("at the strike", lambda: world.records("at the gate"))
    other = pythons.start(*worker)
    eventually("the other is ready", lambda: len(world.records("ready")) == 2)
    world.open_gate()
    assert dying.wait(DEADLINE_SECONDS) == -signal.SIGKILL
    struck = Moment.of(world)
    eventually("completed", lambda: (Moment.of(world).run or {})["state"] == "completed")
    print(f"taken over {_seconds_dead(world):.2f} s after its last heartbeat, with a lease of 1 s")
    other.send_signal(signal.SIGTERM)
    assert other.wait(DEADLINE_SECONDS) == 0
    check(ALONE["reconcile"], undisturbed.end, struck, Moment.of(world))
    proved("process killed", moment="effect", policy="once, reconcile", database=grounds.dialect)


@pytest.mark.parametrize("grounds", ["sqlite", longer("postgres")], indirect=True)
@pytest.mark.parametrize(
    "strike", sample(always=["effect:after#1"], more=["model:after#1", "settle:before#1"])
)
def test_script_that_is_killed_and_run_again_goes_on(
    strike: str, grounds: Grounds, tmp_path: Path, processes: Processes, pythons: Pythons
) -> None:
    undisturbed = Undisturbed(ALONE["reconcile"], grounds, tmp_path / "runs", processes)
    world = undisturbed.world("script")
    script = "crash.script", world.folder, "reconcile"
    killed = pythons.start(*script, strike, DURABLY_LEASE="1")
    assert killed.wait(DEADLINE_SECONDS) == -signal.SIGKILL, killed.communicate()
    world.database.wait_until_left()
    struck = Moment.of(world)

    again = pythons.start(*script, DURABLY_LEASE="1")
    output, errors = again.communicate(timeout=DEADLINE_SECONDS)
    assert (again.returncode, output) == (0, "All is well.\n"), errors
    check(ALONE["reconcile"], undisturbed.end, struck, Moment.of(world))

    third = pythons.start(*script, DURABLY_LEASE="1")
    output, errors = third.communicate(timeout=DEADLINE_SECONDS)
    assert (third.returncode, output) == (0, "All is well.\n"), errors
    assert world.paid() <= undisturbed.end.paid + 1, "a run that is done is only read"
    proved(
        "process killed",
        moment=strike.partition(":")[0],
        policy="once, reconcile",
        database=grounds.dialect,
    )


def _seconds_dead(world: World) -> float:
    """From the first worker's last heartbeat to the second one's claim."""
    sql = """SELECT w.heartbeat_at, b.started_at FROM durably_attempts a
             JOIN durably_workers w ON w.id = a.worker_id
             JOIN durably_attempts b ON b.run_id = a.run_id AND b.attempt = 2
             WHERE a.attempt = 1"""
    (row,) = world.database.rows(sql)
    return (instant(row["started_at"]) - instant(row["heartbeat_at"])).total_seconds()
