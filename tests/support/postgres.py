"""Owns the PostgreSQL of a test run, one server for all tests, and a database for each; leaves
what a server is, and breaking one, to `support.postgres_server`.

The server comes with the development dependencies and is started when a test first asks for it.
``DURABLY_TEST_POSTGRES`` names another one: a URL with the right to create databases, or the
number of a version that the dependency has as well (16).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from support.postgres_guard import guard
from support.postgres_server import (
    PostgresServer,
    clean,
    hand_over,
    open_to_all,
    programs,
    programs_for_all,
)

CHOICE = os.environ.get("DURABLY_TEST_POSTGRES", "")

# --- the fixtures


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Postgres:
    """The run's shared server: nobody may stop it."""
    return request.config.stash[RUN].postgres


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A new, empty database."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def migrated_url(postgres: Postgres) -> Iterator[str]:
    """A new database with durably's tables in its schema `public`."""
    with postgres.database(template=postgres.migrated) as url:
        yield url


@pytest.fixture
def own_postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of the test's own, running, to be broken in any way."""
    server = request.config.stash[RUN].new_server("own")
    server.start()
    yield server
    server.remove()


# --- the shared server


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
        if "://" in CHOICE:
            return Postgres(CHOICE, self)
        with self.locked():
            server = PostgresServer(self.folder / "shared", self._programs())
            if not server.running:
                server = self._new_server("shared")
                server.start()
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
        with (self.folder / "lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if lock.tell() == 0:
                hand_over(self.folder)
                guard(self.folder, self.pid)
                lock.write("guarded")
            yield

    def _new_server(self, name: str) -> PostgresServer:
        # A copy takes a fifth of the time.
        pattern = PostgresServer(self.folder / "pattern", self._programs())
        if not (pattern.folder / "made").exists():
            pattern.make()
            (pattern.folder / "made").touch()
        return pattern.clone(self.folder / name)

    def _programs(self) -> Path:
        version = int(CHOICE) if CHOICE.isdigit() else 18
        return programs_for_all(programs(version), self.folder)


RUN = pytest.StashKey[Run]()


def pytest_configure(config: pytest.Config) -> None:
    if (shared := getattr(config, "workerinput", None)) is not None:
        config.stash[RUN] = Run(Path(shared["postgres_folder"]), shared["postgres_pid"])
    else:
        name = f"durably-test-{secrets.token_hex(4)}"
        config.stash[RUN] = Run(_folder_for_all() / name, os.getpid())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    run: Run = node.config.stash[RUN]
    node.workerinput |= {"postgres_folder": str(run.folder), "postgres_pid": run.pid}


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and RUN in config.stash:
        config.stash[RUN].clean()


def _folder_for_all() -> Path:
    """Where temporary folders go, and where also the account that servers run under gets at."""
    folders = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    return next((folder for folder in folders if open_to_all(folder)), folders[0]).resolve()
