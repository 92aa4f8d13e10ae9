"""A process killed with SIGKILL at every boundary around suspend, decide, wake and expire.

The worker, and everybody who decides, answers and sends signals, die together; others take over
both parts. The boundaries are those that an undisturbed run reached: a new one is covered at once.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from crash import children
from crash.children import Strike
from crash.grounds import Grounds
from crash.processes import Processes
from crash.undisturbed import (
    EACH,
    EVERYTHING,
    SEED,
    Recorded,
    check_reached,
    each,
    layer,
    logs,
    sample,
    some,
)
from crash.waiting import CALLED_OFF, FAMILY, STEPS, TOGETHER, WAITS, Waiting
from crash.waiting_promises import Family, check, check_after_many, check_is_worth_comparing
from matrix.record import proved

pytestmark = pytest.mark.timeout(3600)

AT_ONCE = 2
"""How many crashes are carried out side by side."""

MANY = {"sqlite": 12 if EVERYTHING else 2, "postgres": 12 if EVERYTHING else 1}
"""How many runs of a scenario are struck again and again."""


class UndisturbedWaits(Recorded[Waiting, Family]):
    """A run, with the one that it starts, that nothing happened to."""

    look = Family.of

    def check_is_not_blind(self) -> None:
        names = {strike.name for strike in self.strikes}
        for seen in ("checkpoint", "model", "settle", "commit"):
            assert {f"{seen}:before", f"{seen}:after"} <= names
        check_is_worth_comparing(self.scenario, self.end)


@pytest.mark.parametrize(
    "waiting",
    sample(always=[TOGETHER, FAMILY], more=[STEPS, WAITS, CALLED_OFF]),
    ids=lambda waiting: waiting.name,
)
def test_a_crash_around_any_wait_keeps_every_promise(
    waiting: Waiting, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = UndisturbedWaits(waiting, grounds, tmp_path / "runs", processes)

    def crash(strike: Strike) -> bool:
        world = undisturbed.world(str(strike).replace(":", "_"))
        args = world.folder, waiting.name
        code = processes.run(children.killed, *args, strike)
        assert code in (0, -signal.SIGKILL), logs(world.folder)
        world.database.wait_until_left()
        struck = Family.of(world)
        assert processes.run(children.successor, *args) == 0, logs(world.folder)
        check(waiting, undisturbed.end, struck, Family.of(world))
        undisturbed.clear(world)
        if code != 0:
            proved("process killed", moment=layer(strike), policy="all", database=grounds.dialect)
        return code != 0

    started = time.monotonic()
    strikes = drawn(waiting, grounds, undisturbed.strikes)
    killed = dict(zip(strikes, each(strikes, crash, at_once=AT_ONCE), strict=True))
    seconds = time.monotonic() - started
    print(f"{grounds.dialect}, {waiting.name}: {sum(killed.values())} crashes in {seconds:.1f} s")
    if waiting.in_order:
        check_reached({strike: was for strike, was in killed.items() if is_certain(strike)})
    else:
        assert sum(killed.values()) > len(killed) / 2


def drawn(waiting: Waiting, grounds: Grounds, strikes: list[Strike]) -> list[Strike]:
    """Every strike, or a sample of what the scenario is about."""
    if EVERYTHING:
        return strikes
    about = [strike for strike in strikes if strike.name.startswith(waiting.sample)]
    return some([strike for strike in about if is_certain(strike)], EACH[grounds.dialect])


def is_certain(strike: Strike) -> bool:
    """Whether a run reaches it again: an end that is being told may be told by maintenance too."""
    return not strike.name.startswith("end:") or strike.nth == 1


@pytest.mark.parametrize("waiting", [TOGETHER, FAMILY], ids=lambda waiting: waiting.name)
def test_crashes_around_waits_in_one_attempt_after_another_keep_every_promise(
    waiting: Waiting, grounds: Grounds, tmp_path: Path, processes: Processes
) -> None:
    undisturbed = UndisturbedWaits(waiting, grounds, tmp_path / "runs", processes)

    def crash(number: int) -> int:
        draw = random.Random(SEED + number)
        world = undisturbed.world(str(number))
        args = world.folder, waiting.name
        strikes = draw.choices(undisturbed.strikes, k=draw.randint(2, 4))
        processes.run(children.killed, *args, strikes[0])
        for strike in strikes[1:]:
            processes.run(children.successor, *args, strike)
        assert processes.run(children.successor, *args) == 0, logs(world.folder)
        crashes = len(world.records("killed"))
        check_after_many(waiting, undisturbed.end, Family.of(world), crashes)
        undisturbed.clear(world)
        proved(
            "process killed",
            moment="one attempt after another",
            policy="all",
            database=grounds.dialect,
            times=crashes,
        )
        return crashes

    started = time.monotonic()
    many = MANY[grounds.dialect]
    crashes = sum(each(range(many), crash, at_once=AT_ONCE))
    seconds = time.monotonic() - started
    print(f"{grounds.dialect}, {waiting.name}: {crashes} crashes in {many} runs, {seconds:.1f} s")
    assert crashes >= many / 2, "the strikes drawn hardly ever hit"
