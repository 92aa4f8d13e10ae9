"""A worker killed with SIGKILL at every boundary that a run reaches; another one finishes.

The boundaries are those that an undisturbed run reached, each as often as it reached it: a new
one is covered at once.
"""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from crash import children
from crash.children import Strike
from crash.processes import Processes
from crash.promises import Moment, check, check_after_many
from crash.scenarios import ALONE, MIXED, Scenario
from crash.undisturbed import Undisturbed, check_reached, each, logs, sample

pytestmark = pytest.mark.timeout(3600)

AT_ONCE = 2
"""How many crashes are carried out side by side."""

SEED = 20_240_229
"""For the crashes that are drawn; each failure names where it struck."""

MANY = 24
"""How many runs are struck again and again."""

POLICIES = ("read", "idempotent", "ask", "tell", "retry", "reconcile", "transactional")


@pytest.mark.parametrize(
    "scenario",
    sample(always=[MIXED], more=[ALONE[policy] for policy in POLICIES]),
    ids=lambda scenario: scenario.name,
)
def test_a_crash_at_any_boundary_keeps_every_promise(
    scenario: Scenario, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = Undisturbed(scenario, tmp_path / "runs", processes)

    def crash(strike: Strike) -> bool:
        world = undisturbed.world(str(strike).replace(":", "_"))
        args = world.folder, scenario.name
        code = processes.run(children.killed, *args, strike)
        assert code in (0, -signal.SIGKILL), logs(world.folder)
        struck = Moment.of(world)
        assert processes.run(children.successor, *args) == 0, logs(world.folder)
        check(scenario, undisturbed.end, struck, Moment.of(world))
        shutil.rmtree(world.folder)
        return code != 0

    started = time.monotonic()
    strikes = undisturbed.strikes
    killed = dict(zip(strikes, each(strikes, crash, at_once=AT_ONCE), strict=True))
    seconds = time.monotonic() - started
    print(f"{scenario.name}: {sum(killed.values())} crashes in {seconds:.1f} s")
    check_reached(killed)


def test_crashes_in_one_attempt_after_another_keep_every_promise(
    tmp_path: Path, processes: Processes
) -> None:
    """Up to four, also while what the last crash left is being settled; the fifth would discard."""
    undisturbed = Undisturbed(MIXED, tmp_path / "runs", processes)

    def crash(number: int) -> int:
        draw = random.Random(SEED + number)
        world = undisturbed.world(str(number))
        args = world.folder, MIXED.name
        strikes = draw.choices(undisturbed.strikes, k=draw.randint(2, 4))
        processes.run(children.killed, *args, strikes[0])
        for strike in strikes[1:]:
            processes.run(children.successor, *args, strike)
        assert processes.run(children.successor, *args) == 0, logs(world.folder)
        crashes = len(world.records("killed"))
        check_after_many(MIXED, undisturbed.end, Moment.of(world), crashes)
        shutil.rmtree(world.folder)
        return crashes

    started = time.monotonic()
    crashes = sum(each(range(MANY), crash, at_once=AT_ONCE))
    print(f"{crashes} crashes in {MANY} runs, {time.monotonic() - started:.1f} s")
    assert crashes >= MANY, "the strikes drawn hardly ever hit"
