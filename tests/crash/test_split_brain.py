"""A worker stopped past its lease, at every boundary; another takes over; then it goes on."""

import os
import signal
import time
from pathlib import Path

import pytest

from crash import children
from crash.children import Strike
from crash.databases import SqliteFile
from crash.grounds import Grounds
from crash.processes import Processes, ended, eventually, is_alive, is_stopped
from crash.promises import Moment, check_split_brain
from crash.scenarios import ALONE
from crash.undisturbed import EACH, Undisturbed, check_reached, each, layer, logs, sample, some
from crash.world import World
from matrix.record import proved

pytestmark = pytest.mark.timeout(3600)

AT_ONCE = {"sqlite": 10, "postgres": 5}
"""How many workers are stopped side by side: most of the time is waiting for their leases. A server
has only so many connections."""

LEASES = (1.0, 4.0, 16.0)
"""Seconds. The first will do, unless the machine is so slow that it ends before the stop."""


class TooSlow(Exception):
    """The lease ended before the worker was stopped."""


@pytest.mark.parametrize(
    "policy",
    sample(always=["ask in a thread"], more=["ask", "reconcile", "transactional"]),
)
def test_late_worker_changes_nothing_and_settles_what_it_left_in_doubt(
    policy: str, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = Undisturbed(ALONE[policy], grounds, tmp_path / "runs", processes)

    def stop(strike: Strike) -> bool:
        for lease_seconds in LEASES:
            world = undisturbed.world(f"{strike} {lease_seconds}".replace(":", "_"))
            try:
                stopped = _split(undisturbed, world, strike, processes, lease_seconds)
            except TooSlow:
                continue
            undisturbed.clear(world)
            if stopped:
                for fault in ("machine frozen past the lease", "two workers holding one run"):
                    proved(
                        fault,
                        moment=layer(strike),
                        policy=undisturbed.scenario.shown,
                        database=grounds.dialect,
                    )
            return stopped
        raise AssertionError(f"a lease of {LEASES[-1]:g} s ended before its worker was stopped")

    started = time.monotonic()
    fair = [strike for strike in undisturbed.strikes if _fair(policy, strike)]
    strikes = some(fair, EACH[grounds.dialect])
    stopped = dict(zip(strikes, each(strikes, stop, at_once=AT_ONCE[grounds.dialect]), strict=True))
    seconds = time.monotonic() - started
    print(
        f"{grounds.dialect}, {policy}: {sum(stopped.values())} workers stopped in {seconds:.1f} s"
    )
    check_reached(stopped)


def _fair(policy: str, strike: Strike) -> bool:
    """Whether a promise covers it.

    A tool stopped after its last look, before its effect, goes on where it was: whatever was found
    out meanwhile is too old. Only the service can refuse it, by the idempotency key.
    """
    return strike.name != "effect:before" or policy != "reconcile"


def _split(
    undisturbed: Undisturbed,
    world: World,
    strike: Strike,
    processes: Processes,
    lease_seconds: float,
) -> bool:
    scenario = undisturbed.scenario
    args = world.folder, scenario.name
    late = processes.start(children.frozen, *args, strike, lease_seconds)
    eventually("stopped", lambda: is_stopped(late) or not is_alive(late))
    if not is_alive(late):
        assert ended(late) == 0, logs(world.folder)
    struck = Moment.of(world)
    if len(struck.attempts) > 1:
        late.kill()
        raise TooSlow
    if not is_alive(late):
        return False
    database = world.database
    locked = isinstance(database, SqliteFile) and database.is_locked()
    other = processes.start(children.rival, *args)
    if locked:
        # SQLite has one writer: while it is stopped inside its transaction, there is no other.
        over = time.monotonic() + 1.5 * lease_seconds
        eventually("lease over", lambda: time.monotonic() > over)
        taken = None
    else:
        eventually("taken over", lambda: _state(world) in ("suspended", "completed"))
        taken = Moment.of(world)
    os.kill(_pid(late.pid), signal.SIGCONT)
    assert ended(late) == 0, logs(world.folder)
    assert ended(other) == 0, logs(world.folder)
    check_split_brain(scenario, undisturbed.end, struck, taken, Moment.of(world))
    return True


def _state(world: World) -> str:
    found = world.database.rows("SELECT state FROM durably_runs")
    return found[0]["state"] if found else ""


def _pid(pid: int | None) -> int:
    assert pid is not None
    return pid
