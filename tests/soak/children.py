"""What happens in the processes of a soak: workers, clients, a person, and who disturbs SQLite.

Each function here is the whole life of one process, which ends with the one that started it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from crash.children import Strike, begin, die, freeze, observe_at
from crash.processes import die_with_parent
from crash.world import World
from durably import LedgerUnavailable, boundaries
from soak import broken, workload
from soak.client import AGAIN_SECONDS, Client
from soak.person import decide_for_ever
from soak.workload import Soaked

GRACE_SECONDS = 2.0
RUNS_AT_ONCE = 8


@dataclass(frozen=True)
class Life:
    """How long a worker lives, and how well.

    Attributes:
        seconds: no longer than this, whatever happens to the soak.
        strike: where it is hit; None: nowhere.
        freezes: at the strike it stops instead of dying.
        flaw: what is left out of it (see `broken`); empty: nothing.
    """

    seconds: float
    lease_seconds: float
    strike: Strike | None = None
    freezes: bool = False
    flaw: str = ""


def worker(folder: Path, name: str, life: Life) -> None:
    """A worker as it is deployed, until SIGTERM; it waits for a database that is away."""
    site = _begin(folder, name, life.seconds)
    if life.flaw:
        broken.FLAWS[life.flaw]()
    if (strike := life.strike) is not None:
        boundaries.observe(
            observe_at(strike, freeze if life.freezes else lambda: die(folder, strike))
        )
    told = asyncio.run(_serve(site, life))
    # A thread that a tool blocks must not keep a process that has left; `durably worker` does so.
    os._exit(0 if told else 3)


async def _serve(site: Soaked, life: Life) -> bool:
    """Work until SIGTERM; False if the worker left by itself."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    options = {"lease": life.lease_seconds, "grace": GRACE_SECONDS}
    while not told.is_set():
        with suppress(LedgerUnavailable):
            async with workload.app(site) as app:
                async with app.worker({"agents": RUNS_AT_ONCE}, **options) as worker:
                    site.world.record("ready", pid=os.getpid())
                    ends = [asyncio.create_task(e.wait()) for e in (told, worker.stopped)]
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                return told.is_set()
        await asyncio.sleep(AGAIN_SECONDS)
    return True


def client(folder: Path, name: str, seconds: float, customers: int) -> None:
    """Customers, until the gate opens and all that they asked for is there."""
    site = _begin(folder, name.partition(".")[0], seconds)

    async def run() -> None:
        async with workload.app(site) as app:
            await Client(site, app, name, customers).run()

    asyncio.run(_once_it_is_there(run))


def person(folder: Path, name: str, seconds: float) -> None:
    """Somebody who decides, for ever."""
    site = _begin(folder, name, seconds)

    async def run() -> None:
        async with workload.app(site) as app:
            await decide_for_ever(site, app)

    asyncio.run(_once_it_is_there(run))


async def _once_it_is_there(run: Callable[[], object]) -> None:
    """Open the application when the database is there; nothing after that gives up."""
    while True:
        try:
            return await run()
        except LedgerUnavailable:
            await asyncio.sleep(AGAIN_SECONDS)


# --- who disturbs SQLite


def hold_lock(folder: Path, seconds: float) -> None:
    """Has the write lock for seconds, and changes nothing."""
    world = _begin(folder, "disturber", 600).world
    with closing(_connected(world)) as file:
        file.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        file.execute("ROLLBACK")


def die_while_writing(folder: Path) -> None:
    """Is killed in the middle of a transaction, some of which is in the file already."""
    world = _begin(folder, "disturber", 600).world
    file = _connected(world)
    file.execute("PRAGMA cache_size=5")  # So that it spills.
    file.execute("BEGIN IMMEDIATE")
    file.executemany("INSERT INTO bookings VALUES (?)", [[f"torn {n}"] for n in range(20_000)])
    os.kill(os.getpid(), signal.SIGKILL)


def _connected(world: World) -> sqlite3.Connection:
    path = world.url.removeprefix("sqlite:///")
    return sqlite3.connect(path, timeout=60, isolation_level=None)


# --- all of them


def _begin(folder: Path, name: str, seconds: float) -> Soaked:
    begin(folder, name, seconds)
    os.setsid()  # Ctrl-C in the terminal is the soak's, which ends what it has started.
    die_with_parent()
    return Soaked.at(World(folder))
