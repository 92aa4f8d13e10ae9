"""Where worlds are made: new ledgers, quickly, with the table of the transactional tools.

Owns how one database is had anew for each of hundreds of runs; what is in a world is `world`'s.
"""

from __future__ import annotations

import shutil
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from crash import children
from crash.databases import database_at
from crash.processes import Processes
from crash.scenarios import BOOKINGS
from crash.world import World
from support.postgres import wipe
from support.postgres_run import Postgres


class Grounds(Protocol):
    """Makes worlds on one kind of database."""

    dialect: str

    def world(self, folder: Path) -> World:
        """A new world, in a folder that this makes."""
        ...

    def clear(self, world: World) -> None:
        """Delete a world that nobody uses any more; another one may have its database."""
        ...


class SqliteGrounds:
    """A file for each world, copied from the first."""

    dialect = "sqlite"

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._pattern = folder
        self._processes = processes
        self._lock = threading.Lock()

    def world(self, folder: Path) -> World:
        with self._lock:
            if not self._pattern.exists():
                self._pattern.mkdir()
                code = self._processes.run(children.prepare, self._pattern)
                assert code == 0, (self._pattern / "prepare.log").read_text()
        folder.mkdir()
        shutil.copy(self._pattern / "ledger.db", folder / "ledger.db")
        return World(folder)

    def clear(self, world: World) -> None:
        shutil.rmtree(world.folder)


class PostgresGrounds:
    """A database for each world, which later ones have again: a new one takes ten times as long."""

    dialect = "postgres"

    def __init__(self, postgres: Postgres, databases: ExitStack) -> None:
        self._postgres = postgres
        self._databases = databases
        self._free: list[str] = []
        self._lock = threading.Lock()

    def world(self, folder: Path) -> World:
        with self._lock:
            url = self._free.pop() if self._free else self._new()
        folder.mkdir()
        (folder / "url").write_text(f"{url}?pool_size=2")
        return World(folder)

    def clear(self, world: World) -> None:
        url = world.url.partition("?")[0]
        wipe(url)
        shutil.rmtree(world.folder)
        with self._lock:
            self._free.append(url)

    def _new(self) -> str:
        new = self._postgres.database(template=self._postgres.migrated)
        url = self._databases.enter_context(new)
        database_at(url).execute(BOOKINGS)
        return url
