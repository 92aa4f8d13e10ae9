"""Owns what the tests of one run share, one server and a database for each, and that nothing of it
outlives the run; leaves what a server is to `support.postgres_server`.

The server comes with the development dependencies and is started when a test first asks for it.
``DURABLY_TEST_POSTGRES`` names another one: a URL with the right to create databases, or the
number of a version that the dependency has as well (16).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from support.postgres_server import (
    PostgresServer,
    clean,
    gone,
    hand_over,
    programs,
    programs_for_all,
    remove,
)

CHOICE = os.environ.get("DURABLY_TEST_POSTGRES", "")
CONNECTIONS = 400
"""Enough for several crash tests at once, each with some workers that have nine connections."""

TESTS = Path(__file__).parent.parent


class Postgres:
    """A server that tests share, each with databases of its own.

    Attributes:
        url: to its database `postgres`.
    """

    def __init__(self, url: str, run: Run) -> None:
        self.url = url
        self._run = run
        self._names = 0

    def url_of(self, database: str) -> str:
        return urlsplit(self.url)._replace(path=f"/{database}").geturl()

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """A new database, as long as the context is open; its URL."""
        self._names += 1
        name = f"{self._run.name}_{os.getpid()}_{self._names}"
        self._do(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url_of(name)
        finally:
            self._do(f"DROP DATABASE {name} WITH (FORCE)")

    @cached_property
    def migrated(self) -> str:
        """The name of a database with durably's tables, to be copied; nobody can open it."""
        name, new = f"{self._run.name}_migrated", f"{self._run.name}_migrating"
        with self._run.locked():
            if not self._do("SELECT 1 FROM pg_database WHERE datname = %s", name):
                self._do(f"DROP DATABASE IF EXISTS {new}")
                self._do(f"CREATE DATABASE {new} TEMPLATE template0")
                asyncio.run(_migrate(self.url_of(new)))
                self._do(f"ALTER DATABASE {new} WITH ALLOW_CONNECTIONS false")
                self._do(f"ALTER DATABASE {new} RENAME TO {name}")
        return name

    def drop_all(self) -> None:
        """Drop what tests that were interrupted left here."""
        ours = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        for (name,) in self._do(ours, f"{self._run.name}_"):
            self._do(f"DROP DATABASE {name} WITH (FORCE)")

    def _do(self, sql: str, *args: str) -> list[tuple[Any, ...]]:
        # Only here: whoever tests something else need not wait for it. Each time a connection of
        # its own: tests may fork.
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql, args or None)
            return cursor.fetchall() if cursor.description else []


async def _migrate(url: str) -> None:
    from durably.ledger.connect import database_for

    database = database_for(url)
    try:
        await database.migrate()
    finally:
        await database.close()


# --- one run of pytest, in one process or several


class Run:
    """What the processes of one run of pytest have in common.

    Attributes:
        folder: where its servers are; made when the first one is.
        pid: the process that the run ends with.
        name: begins the names of its databases; no other run has it.
    """

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder = folder
        self.pid = pid
        self.name = folder.name.replace("-", "_")

    @cached_property
    def postgres(self) -> Postgres:
        """The shared server, which the first process that asks starts."""
        with self.locked():
            if "://" in CHOICE:
                return Postgres(CHOICE, self)
            server = PostgresServer(self.folder / "shared", self._programs())
            if not server.running:
                server = self._new_server("shared")
                server.start(max_connections=CONNECTIONS)
            return Postgres(server.url(), self)

    def new_server(self, name: str) -> PostgresServer:
        """A server that is not yet started; the name is completed to one that is not taken."""
        with self.locked():
            return self._new_server(f"{name}-{secrets.token_hex(4)}")

    def clean(self) -> None:
        if self.folder.exists():
            if "://" in CHOICE:
                self.postgres.drop_all()
            clean(self.folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (self.folder / "guarded").exists():
                hand_over(self.folder)
                guard(self.folder, self.pid)
                (self.folder / "guarded").touch()
            yield

    def _new_server(self, name: str) -> PostgresServer:
        # A copy takes a fifth of the time.
        pattern = PostgresServer(self.folder / "pattern", self._programs())
        if not (pattern.folder / "made").exists():
            pattern.remove()
            pattern.make()
            (pattern.folder / "made").touch()
        remove(self.folder / name)  # what an attempt that failed left
        return pattern.clone(name)

    def _programs(self) -> Path:
        version = int(CHOICE) if CHOICE.isdigit() else 18
        return programs_for_all(programs(version), self.folder)


# --- the guard: a process that outlives a run which comes to a sudden end


def guard(folder: Path, pid: int) -> None:
    """Have a folder of servers cleaned up as soon as the process is gone, however it went."""
    subprocess.Popen(
        [sys.executable, "-m", __name__, folder, str(pid)],
        cwd=TESTS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # what ends the test run must not end it
    )


def _watch(folder: Path, pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        run = psutil.Process(pid)
        # A run that ends in order cleans up by itself.
        while folder.exists() and run.is_running() and not gone(run):
            time.sleep(0.5)
    Run(folder, pid).clean()


if __name__ == "__main__":
    _watch(Path(sys.argv[1]), int(sys.argv[2]))
