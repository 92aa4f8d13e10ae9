"""A worker killed with SIGKILL at every boundary that a run reaches; another one finishes.

The boundaries are those that an undisturbed run reached, each as often as it reached it: a new
one is covered at once.
"""

import random
import signal
import time
from pathlib import Path

import pytest

from crash import children
from crash.children import Strike
from crash.grounds import Grounds
from crash.processes import Processes
from crash.promises import Moment, check, check_after_many
from crash.scenarios import ALONE, APPROVED, MIXED, STREAMED, Scenario
from crash.undisturbed import (
    EACH,
    EVERYTHING,
    SEED,
    Undisturbed,
    boundary,
    check_reached,
    each,
    layer,
    logs,
    sample,
    some,
)
from matrix.record import proved

pytestmark = pytest.mark.timeout(3600)

AT_ONCE = 2
"""How many crashes are carried out side by side."""

MANY = {"sqlite": 24 if EVERYTHING else 8, "postgres": 24 if EVERYTHING else 4}
"""How many runs are struck again and again."""

POLICIES = ("read", "idempotent", "ask", "tell", "retry", "reconcile", "transactional")


@pytest.mark.parametrize(
    "scenario",
    sample(always=[MIXED, APPROVED, STREAMED], more=[ALONE[policy] for policy in POLICIES]),
    ids=lambda scenario: scenario.name,
)
def test_a_crash_at_any_boundary_keeps_every_promise(
    scenario: Scenario, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = Undisturbed(scenario, grounds, tmp_path / "runs", processes)

    def crash(strike: Strike) -> bool:
        world = undisturbed.world(str(strike).replace(":", "_"))
        args = world.folder, scenario.name
        code = processes.run(children.killed, *args, strike)
        assert code in (0, -signal.SIGKILL), logs(world.folder)
        world.database.wait_until_left()
        struck = Moment.of(world)
        assert processes.run(children.successor, *args) == 0, logs(world.folder)
        check(scenario, undisturbed.end, struck, Moment.of(world))
        undisturbed.clear(world)
        if code != 0:
            proved(
                "process killed",
                moment=layer(strike),
                policy=scenario.shown,
                database=grounds.dialect,
            )
        return code != 0

    started = time.monotonic()
    strikes = drawn(scenario, grounds, undisturbed.strikes)
    killed = dict(zip(strikes, each(strikes, crash, at_once=AT_ONCE), strict=True))
    seconds = time.monotonic() - started
    print(f"{grounds.dialect}, {scenario.name}: {sum(killed.values())} crashes in {seconds:.1f} s")
    check_reached(killed)


def drawn(scenario: Scenario, grounds: Grounds, strikes: list[Strike]) -> list[Strike]:
    """Every strike, or a sample that has every boundary of the run that mixes all policies."""
    if scenario is MIXED:
        sampled = some(strikes, boundary)
        if grounds.dialect == "postgres":
            return sampled
        # Where a call is in doubt, each policy does something else.
        return sampled + [s for s in strikes if s.name == "effect:after" and s not in sampled]
    about = [strike for strike in strikes if strike.name.startswith(scenario.sample)]
    return some(strikes if EVERYTHING else about, EACH[grounds.dialect])


def test_crashes_in_one_attempt_after_another_keep_every_promise(
    grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    """Up to four, also while what the last crash left is being settled; the fifth would discard."""
    undisturbed = Undisturbed(MIXED, grounds, tmp_path / "runs", processes)

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
        undisturbed.clear(world)
        proved(
            "process killed",
            moment="one attempt after another",
            policy=MIXED.shown,
            database=grounds.dialect,
            times=crashes,
        )
        return crashes

    started = time.monotonic()
    many = MANY[grounds.dialect]
    crashes = sum(each(range(many), crash, at_once=AT_ONCE))
    print(
        f"{grounds.dialect}: {crashes} crashes in {many} runs, {time.monotonic() - started:.1f} s"
    )
    assert crashes >= many, "the strikes drawn hardly ever hit"
