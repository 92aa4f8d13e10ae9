"""The database of a world, looked at with plain SQL, not through the library: a file of SQLite's,
or a database of PostgreSQL's.

Owns how each is read and changed by hand; what is to be found in it is `promises`'s.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

type Look = Callable[[str], list[dict[str, Any]]]

PATIENCE_SECONDS = 120.0


class WorldDatabase(Protocol):
    """The tables of one world, and of nobody else."""

    dialect: str

    @property
    def broken(self) -> tuple[type[Exception], ...]:
        """What is raised while the database is away."""
        ...

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What a query finds now."""
        ...

    def transaction(self) -> AbstractContextManager[Any]:
        """The driver's own connection in a transaction: committed, unless the block raises."""
        ...

    def execute(self, sql: str) -> None:
        """Change something by hand."""
        ...

    def snapshot(self) -> Any:
        """A context with a `Look` at one instant; changes nothing, not even what a crash left."""
        ...

    def wait_until_left(self) -> None:
        """Wait until nothing is under way any more of processes that were killed."""
        ...


def instant(stored: str | datetime) -> datetime:
    """A time as either database has it."""
    return datetime.fromisoformat(stored) if isinstance(stored, str) else stored


def database_at(url: str) -> WorldDatabase:
    path = url.removeprefix("sqlite:///")
    return PostgresDatabase(url) if path == url else SqliteFile(Path(path))


class SqliteFile:
    dialect = "sqlite"
    broken = (sqlite3.OperationalError,)

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.path, timeout=60)) as connection:
            return _rows(connection, sql)

    def execute(self, sql: str) -> None:
        with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
            connection.execute(sql)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with closing(sqlite3.connect(self.path, timeout=5)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Look]:
        # A copy is read: to open the file itself would tidy up what the crash has left.
        with TemporaryDirectory(dir=self.path.parent) as copy:
            for file in self.path.parent.glob(f"{self.path.name}*"):
                shutil.copy(file, copy)
            with closing(sqlite3.connect(Path(copy) / self.path.name)) as connection:
                yield lambda sql: _rows(connection, sql)

    def wait_until_left(self) -> None:
        """Whoever is dead does nothing more."""

    def is_locked(self) -> bool:
        """Whether somebody holds the write lock."""
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        with closing(connection):
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
        return False


def _rows(connection: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    connection.row_factory = sqlite3.Row
    return [dict(row) for row in connection.execute(sql)]


class PostgresDatabase:
    dialect = "postgres"

    def __init__(self, url: str) -> None:
        self.url = url.partition("?")[0]

    @property
    def broken(self) -> tuple[type[Exception], ...]:
        import psycopg

        return (psycopg.OperationalError,)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with self._connected() as connection:
            return connection.execute(sql.encode()).fetchall()

    def execute(self, sql: str) -> None:
        with self._connected() as connection:
            connection.execute(sql.encode())

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        import psycopg

        with psycopg.connect(self.url) as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Look]:
        with self._connected() as connection:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield lambda sql: connection.execute(sql.encode()).fetchall()

    def wait_until_left(self) -> None:
        # Of a killed process the server may still have words to carry out.
        deadline = time.monotonic() + PATIENCE_SECONDS
        others = (
            "SELECT application_name, state FROM pg_stat_activity "
            "WHERE datname = current_database() "
            "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        with self._connected() as connection:
            while left := connection.execute(others).fetchall():
                assert time.monotonic() < deadline, (
                    f"{len(left)} sessions remain, such as {left[0]}"
                )
                time.sleep(0.005)

    def _connected(self) -> Any:
        # Only here: who tests with SQLite need not wait for it.
        import psycopg
        from psycopg.rows import dict_row
        from psycopg.types.string import TextLoader

        connection = psycopg.connect(self.url, autocommit=True, row_factory=dict_row)
        # As it is stored, and as SQLite has it.
        connection.adapters.register_loader("json", TextLoader)
        connection.adapters.register_loader("jsonb", TextLoader)
        return connection
