"""The SQLite file that is moved: its rows, streamed, and the mark that it is given.

Owns both connections to it; what is done with the rows is `move`'s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from durably.errors import LedgerError, SchemaError
from durably.ledger import reads
from durably.ledger.queries import load_queries
from durably.ledger.schema import newest_version
from durably.ledger.sqlite import moved
from durably.ledger.sqlite.connection import connect, drive, register_functions, translate
from durably.ledger.sqlite.moved import Mark, Stage
from durably.ledger.sqlite.schema import schema_version, upgrade
from durably.ledger.transfer.obstacles import live_workers
from durably.ledger.transfer.tables import PER_RUN, Table, Values

EVERYTHING = 2**63 - 1
"""An id that no run has."""


@dataclass(frozen=True, slots=True)
class Highest:
    """The highest ids that there ever were."""

    runs: int
    events: int
    decisions: int
    signals: int
    notices: int
    actions: int


class Source:
    """A ledger in a file, read on a connection that cannot write.

    Raises:
        SchemaError: there is no ledger, or a newer version of durably wrote it.
        LedgerError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self._queries = load_queries("sqlite")
        if not path.exists():
            raise SchemaError(f"There is no ledger at {self.url}: check the URL.")
        with self._errors():
            uri = f"{path.absolute().as_uri()}?mode=ro"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            register_functions(self._connection, _utc_now)
        try:
            self._check_version()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()

    # --- what is there

    def find_mark(self) -> Mark | None:
        with self._errors():
            return moved.find_mark(self._connection)

    def obstacles(self) -> list[str]:
        """What is in the way of moving it, a sentence each."""
        with self._errors():
            found = _live_workers(self._connection, self.path)
            keys = [row[0] for row in self._fetch("list_unmovable")]
        if keys:
            found.append(
                f"Run {keys[0]!r} has a NUL in its key, agent or queue, which PostgreSQL cannot "
                "store; let it end, then delete it with `durably prune`."
            )
        return found

    def counts(self) -> dict[str, int]:
        """How many rows each table has."""
        with self._errors():
            there = {name for (name,) in self._fetch("list_tables")}
            for table in PER_RUN:
                if (name := f"durably_{table.name}") not in there:
                    # An older ledger, before it is upgraded: it has none of these.
                    self._connection.execute(
                        f"CREATE TEMP TABLE IF NOT EXISTS {name} AS SELECT 1 WHERE FALSE"
                    )
            cursor = self._connection.execute(self._queries["count_moved"])
            names = [column[0] for column in cursor.description]
            return dict(zip(names, cursor.fetchone(), strict=True))

    def states(self) -> dict[str, int]:
        """How many runs are in each state."""
        with self._errors():
            return dict(self._fetch("count_states"))

    def highest(self) -> Highest:
        with self._errors():
            return Highest(*self._fetch("highest_ids")[0])

    def end_of_range(self, after: int, runs: int) -> int | None:
        """The id of the run with which a range of so many ends; None if none is left."""
        with self._errors():
            return self._fetch("end_of_range", after=after, limit=runs)[0][0]

    def rows(self, table: Table, after: int = 0, upto: int = EVERYTHING) -> Iterator[Values]:
        """The rows of a range of runs, one after the other, in their canonical form."""
        statement = self._queries[f"read_{table.name}"]
        with self._errors():
            for row in self._connection.execute(statement, {"after": after, "upto": upto}):
                yield table.canonical(row)

    # --- the mark

    def set_mark(self, mark: Mark) -> None:
        """Mark the ledger as moved, unless somebody works on it.

        Raises:
            LedgerError: a worker is alive, or somebody else has marked it.
        """
        with self._writing(upgrade_first=True) as connection:
            moved.refuse_moved(connection, self.path)
            if alive := _live_workers(connection, self.path):
                raise LedgerError(alive[0])
            moved.set_mark(connection, mark, self.path)

    def set_stage(self, transfer_id: str, stage: Stage) -> None:
        with self._writing() as connection:
            moved.set_stage(connection, transfer_id, stage)

    def remove_mark(self) -> None:
        with self._writing() as connection:
            moved.remove_mark(connection)

    # --- inside

    def _check_version(self) -> None:
        with self._errors():
            found, newest = schema_version(self._connection), newest_version("sqlite")
        if found == 0:
            raise SchemaError(f"There is no ledger at {self.url}: check the URL.")
        if found > newest:
            raise SchemaError(
                f"{self.path} was written by a newer durably (schema {found}; this version knows "
                f"{newest}). Upgrade durably here before moving it."
            )

    @contextmanager
    def _writing(self, *, upgrade_first: bool = False) -> Generator[sqlite3.Connection]:
        with self._errors():
            connection = connect(self.path, _utc_now)
            try:
                if upgrade_first:
                    upgrade(connection)
                with moved.marking(connection):
                    yield connection
            finally:
                connection.close()

    @contextmanager
    def _errors(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, self.path) from error

    def _fetch(self, name: str, **params: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._queries[name], params).fetchall()


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _live_workers(connection: sqlite3.Connection, path: Path) -> list[str]:
    return live_workers(drive(connection, reads.list_workers(), _utc_now), path)
