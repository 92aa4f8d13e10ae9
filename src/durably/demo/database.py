"""The database that the shop shares with the ledger: a SQLite file, or a schema of PostgreSQL.

Owns connecting, making and dropping; what is stored there is the shop's and the ledger's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from durably.demo.site import data_text
from durably.ledger.connect import database_for

if TYPE_CHECKING:
    from durably.demo.postgres import PostgresSchema

type Row = dict[str, Any]


class Database(Protocol):
    """Where shop and ledger lie. Statements are written with ``?`` for each value.

    Attributes:
        url: the ledger's, for durably.
        shown: the same, as it may be printed.
        name: how people call this kind of database.
        failures: what its driver raises.
        remains: what a demo leaves here apart from its folder, for the user to know; or "".
    """

    url: str
    shown: str
    name: str
    failures: tuple[type[Exception], ...]
    remains: str

    def held(self) -> AbstractContextManager[None]:
        """Make the place for a new demo, and have it for this demo alone until the block ends.

        Raises:
            ConfigError, LedgerError: it is taken, or cannot be made.
        """
        ...

    def remove(self) -> None:
        """Remove what was made here, apart from the folder."""
        ...

    def make_shop(self) -> None:
        """Make the shop's tables, with its orders."""
        ...

    def read(self, statement: str, *values: object) -> list[Row]:
        """What a query finds."""
        ...

    def write(self, connection: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement in the caller's open transaction; what it returns."""
        ...


def database_of(folder: Path, url: str | None) -> Database:
    """The demo's database: PostgreSQL if there is a URL, else a file in the folder."""
    if url is None:
        return SqliteFile(folder / "support.db")
    return _postgres(url)


def _postgres(url: str) -> PostgresSchema:
    database_for(url)  # Refuses what it cannot use, also where PostgreSQL's driver is missing.
    from durably.demo.postgres import PostgresSchema

    return PostgresSchema(url)


class SqliteFile:
    """A file in the demo's folder."""

    name = "SQLite"
    remains = ""
    failures: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = self.shown = f"sqlite:///{path}"

    @contextmanager
    def held(self) -> Generator[None]:
        yield  # The folder is new.

    def remove(self) -> None:
        """The folder goes as a whole."""

    def make_shop(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(f"BEGIN;\n{data_text('shop.sql')}\nCOMMIT;")

    def read(self, statement: str, *values: object) -> list[Row]:
        # A long timeout: the workers' commits come first.
        with closing(sqlite3.connect(self.path, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]

    def write(self, connection: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return connection.execute(statement, values).fetchall()
