"""A run that nothing happened to: what every other one is compared with, and starts from."""

import json
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from crash import children
from crash.children import Strike
from crash.grounds import Grounds
from crash.processes import Processes
from crash.promises import Moment
from crash.scenarios import Scenario
from crash.world import World


class Named(Protocol):
    """A scenario, as the processes know it."""

    @property
    def name(self) -> str: ...


class Recorded[S: Named, M]:
    """A run carried out to its end, with every boundary that it reached.

    Attributes:
        end: what it left.
        strikes: each boundary, as often as it was reached.
    """

    def __init__(self, scenario: S, grounds: Grounds, folder: Path, processes: Processes) -> None:
        self.scenario = scenario
        self._grounds = grounds
        self._folder = folder
        folder.mkdir()
        world = self.world("undisturbed")
        code = processes.run(children.recorded, world.folder, scenario.name)
        assert code == 0, logs(world.folder)
        self.end = self.look(world)
        reached = json.loads((world.folder / "boundaries.json").read_text())
        self.strikes = [Strike(name, nth) for name, nth in reached]
        self.clear(world)
        self.check_is_not_blind()

    @staticmethod
    def look(world: World) -> M:
        """What it left."""
        raise NotImplementedError

    def check_is_not_blind(self) -> None:
        """To compare with it is worth it."""
        raise NotImplementedError

    def world(self, name: str) -> World:
        """A new world, with an empty ledger."""
        return self._grounds.world(self._folder / name)

    def clear(self, world: World) -> None:
        """Done with it: nobody uses it any more."""
        self._grounds.clear(world)


class Undisturbed(Recorded[Scenario, Moment]):
    """One that only its tools' policies are about."""

    look = Moment.of

    def check_is_not_blind(self) -> None:
        """To compare with it is worth it: every call happened once, every layer was seen."""
        names = {strike.name for strike in self.strikes}
        for layer in ("checkpoint", "model", "tool", "effect", "settle", "commit"):
            assert {f"{layer}:before", f"{layer}:after"} <= names
        responses = self.scenario.responses
        calls = sum(len(response) for response in responses if not isinstance(response, str))
        assert len(self.end.effects) == calls
        assert set(self.end.happened.values()) == {1}
        assert self.end.paid == len(responses)


EVERYTHING = os.environ.get("CRASH_TESTS") == "all"
"""Whether this is ``make crash``, which takes minutes; otherwise it is a sample."""

SEED = 20_240_229
"""For all that is drawn; each failure names where it struck."""


def sample[A](always: Sequence[A], more: Sequence[A]) -> list[A]:
    """What is disturbed: a sample, or everything with ``make crash``."""
    return [*always, *(more if EVERYTHING else ())]


def some(strikes: Sequence[Strike], each: Callable[[Strike], str]) -> list[Strike]:
    """A sample that has one strike of each boundary, or of each layer."""
    if EVERYTHING:
        return list(strikes)
    draw = random.Random(SEED)
    reached: dict[str, list[Strike]] = {}
    for strike in strikes:
        reached.setdefault(each(strike), []).append(strike)
    return [draw.choice(times) for times in reached.values()]


def boundary(strike: Strike) -> str:
    """``settle:before``"""
    return strike.name


def layer(strike: Strike) -> str:
    """``settle``, which has boundaries before and after it."""
    return strike.name.partition(":")[0]


EACH = {"sqlite": boundary, "postgres": layer}
"""What a sample strikes once: on PostgreSQL every crash costs twice as much."""


def each[A, T](items: Sequence[A], disturb: Callable[[A], T], *, at_once: int) -> list[T]:
    """Disturb runs side by side; every failure is shown, not just the first."""
    failures: list[str] = []

    def attempt(item: A) -> T | None:
        try:
            return disturb(item)
        except AssertionError as error:
            failures.append(f"struck at {item}: {error}")
            return None

    with ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(attempt, items))
    if failures:
        pytest.fail(f"{len(failures)} of {len(results)}:\n" + "\n".join(failures), pytrace=False)
    return [result for result in results if result is not None]


def check_reached(struck: dict[Strike, bool]) -> None:
    """Every boundary was struck.

    But for some commits, and deltas: more of them share a write in one run than in another, so
    that the last ones on record may not come.
    """
    missed = [str(strike) for strike, was in struck.items() if not was]
    assert all(strike.startswith(("commit:", "delta:")) for strike in missed), missed
    assert len(missed) <= max(1, len(struck) / 10), missed


def logs(folder: Path) -> str:
    """What the processes of a run said last."""
    return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in folder.glob("*.log"))
