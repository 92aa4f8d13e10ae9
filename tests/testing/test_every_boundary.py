"""A crash in this process at every boundary that a run reaches which mixes all policies.

The same run and the same promises as of the crashes by SIGKILL in `crash`, in a fraction of the
time: see `crash.promises`.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from crash.children import Strike, decide
from crash.grounds import Grounds, PostgresGrounds
from crash.processes import eventually
from crash.promises import Moment, check
from crash.scenarios import BOOKINGS, BUDGET, KEY, MIXED, PROMPT, TAG
from crash.undisturbed import EACH
from crash.world import Trace, World
from durably import Durably, RunState, boundaries
from durably.testing import crash_at, ledgers
from support.sample import EVERYTHING

SEED = 20_240_229

for name in ("effect:before", "effect:after", "effect:refused", "model:paid", "reconcile:before"):
    boundaries.define(name, "the world of these tests has it")


class Files:
    """Makes worlds whose ledgers are files."""

    dialect = "sqlite"

    def world(self, folder: Path) -> World:
        folder.mkdir()
        world = World(folder)
        with ledgers.opened(Durably(world.url)):
            world.database.execute(BOOKINGS)
        return world

    def clear(self, world: World) -> None:
        shutil.rmtree(world.folder)


@pytest.fixture(params=["sqlite", "postgres"])
def grounds(request: pytest.FixtureRequest) -> Iterator[Grounds]:
    """Where worlds are made, on each database in turn."""
    with ExitStack() as databases:
        if request.param == "sqlite":
            yield Files()
        else:
            yield PostgresGrounds(request.getfixturevalue("postgres"), databases)


async def work(app: Durably, world: World) -> None:
    """Until the run is at its end; a person decides what it asks."""
    await app.set_budget(BUDGET, tag=TAG)
    run = await app.enqueue("clerk", PROMPT, key=KEY, tags=[TAG])
    while True:
        await app.drain()
        await run.refresh()
        if run.state is not RunState.SUSPENDED:
            return
        await decide(run, world)


@pytest.mark.timeout(1800)
def test_a_crash_in_process_at_any_boundary_keeps_every_promise(
    grounds: Grounds, tmp_path: Path
) -> None:
    usual, strikes = undisturbed(grounds.world(tmp_path / "undisturbed"))
    names = {strike.name for strike in strikes}
    assert {"model:after", "intent:after", "outcome:before", "transaction:after_commit"} <= names
    failures: list[str] = []
    for number, strike in enumerate(strikes if EVERYTHING else sample(strikes, grounds.dialect)):
        world = grounds.world(tmp_path / str(number))
        try:
            crash(world, usual, strike)
        except AssertionError as error:
            if strike.name.startswith("commit:") and "Nothing came to" in str(error):
                continue  # More writes shared a commit than in the other run.
            failures.append(f"struck at {strike}: {error}")
        else:
            grounds.clear(world)
    assert not failures, "\n".join(failures)


def undisturbed(world: World) -> tuple[Moment, list[Strike]]:
    """What a run leaves that nothing happens to, and every boundary that it reaches."""
    trace = Trace()

    async def once() -> None:
        app, _ = MIXED.app(world)
        async with app:
            with boundaries.observing(trace):
                await work(app, world)

    asyncio.run(once())
    return look(world), [Strike(*at) for at in trace.reached]


def crash(world: World, usual: Moment, strike: Strike) -> None:
    """Crash a run, go on with it in the same process, and look at what is left."""
    app, _ = MIXED.app(world)

    async def crashed() -> None:
        async with app, crash_at(app, strike.name, strike.nth):
            await work(app, world)

    async def finished() -> None:
        async with app:
            await work(app, world)

    asyncio.run(crashed())
    struck = look(world)
    asyncio.run(finished())
    check(MIXED, usual, struck, look(world))


def look(world: World) -> Moment:
    """What is left, once nobody has the file open: the last to close it changes it as well."""
    wal = world.folder / "ledger.db-wal"
    eventually("no connection is left", lambda: not wal.exists())
    return Moment.of(world)


def sample(strikes: list[Strike], dialect: str) -> list[Strike]:
    """One strike of each boundary; on PostgreSQL of each layer."""
    draw = random.Random(SEED)
    reached: dict[str, list[Strike]] = {}
    for strike in strikes:
        reached.setdefault(EACH[dialect](strike), []).append(strike)
    # Not of the last: there are fewer commits where more writes share one.
    return [draw.choice(times[: len(times) // 2 + 1]) for times in reached.values()]
