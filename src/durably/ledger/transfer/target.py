"""The PostgreSQL ledger that runs are moved into: its mark, and the batches that it takes.

Owns the connection, opened again when it was lost, and the transactions; their order is `move`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from durably import boundaries
from durably.errors import LedgerError, SchemaError
from durably.ledger import reads
from durably.ledger.postgres import incoming
from durably.ledger.postgres.connection import connect, drive_cursor, translate
from durably.ledger.postgres.schema import ledger_version, upgrade
from durably.ledger.postgres.statements import statements
from durably.ledger.postgres.url import PostgresUrl
from durably.ledger.schema import newest_version
from durably.ledger.sqlite.moved import Mark
from durably.ledger.transfer.obstacles import live_workers
from durably.ledger.transfer.source import EVERYTHING, Highest, Source
from durably.ledger.transfer.tables import PER_RUN, SHARED, Table, Values

type Cursor = psycopg.Cursor[dict[str, Any]]

_BEGIN: LiteralString = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '10s'; "
    # A transfer that is stopped in the middle must not be in the way of another.
    "SET LOCAL idle_in_transaction_session_timeout = '2min'; "
    # To copy or to compare a large ledger takes longer than other statements may.
    "SET LOCAL statement_timeout = 0; SET LOCAL synchronous_commit = on"
)

_ROWS_AT_ONCE = 20 if psycopg.capabilities.has_stream_chunked() else 1
"""How many rows are in memory while they are compared; more at once is quicker."""

TAKEN_BACK = "The transfer was taken back meanwhile; nothing more was done."


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is, as its target knows it.

    Attributes:
        copied_to: every run up to this id is there, with all that belongs to it.
        finished: it is complete, and in use.
        runs: how many there are; only counted where that is said.
    """

    copied_to: int
    finished: bool
    runs: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction has taken, and up to which run all are there now."""

    position: int
    runs: int = 0
    rows: int = 0


class Target:
    """A schema of a PostgreSQL database.

    Attributes:
        version: of its tables; 0: there are none.
        made_tables: `migrate` has made them.

    Raises:
        SchemaError: its tables are of another version.
        LedgerUnavailable: the server cannot be reached.
    """

    def __init__(self, where: PostgresUrl) -> None:
        self.where = where
        self._connection: psycopg.Connection[Any] | None = None
        self._statements = statements(where.schema)
        self.version = ledger_version(where)
        self.made_tables = False
        newest = newest_version("postgres")
        if self.version not in (0, newest):
            what = "run `durably migrate`" if self.version < newest else "upgrade durably here"
            raise SchemaError(
                f"{where.shown} has schema {self.version}, this version of durably needs {newest}: "
                f"{what} first."
            )

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    # --- what is there

    def migrate(self) -> None:
        """Make its tables."""
        self.version = upgrade(self.where).now
        self.made_tables = True

    def identity(self) -> str:
        """The ledger's own id; the same however its URL is written."""
        with self._transaction() as cursor:
            return self._one(cursor, "look_around", transfer_id="")["ledger_id"]

    def obstacles(self) -> list[str]:
        """What is in the way of moving runs here, a sentence each."""
        if self.version == 0:
            return []
        with self._transaction() as cursor:
            return self._obstacles(cursor, "")

    def find(self, transfer_id: str) -> Progress | None:
        """How far a transfer is; None if it never began here."""
        with self._transaction() as cursor:
            return _progress(self._rows(cursor, "find_transfer", transfer_id=transfer_id))

    def progress(self, transfer_id: str) -> Progress:
        """How far a transfer is that has begun here.

        Raises:
            LedgerError: it was taken back.
        """
        found = self.find(transfer_id)
        if found is None:
            raise LedgerError(TAKEN_BACK)
        return found

    def counts(self) -> dict[str, int]:
        """How many rows each table has."""
        with self._transaction() as cursor:
            return self._one(cursor, "count_moved")

    def rows(self, table: Table) -> Iterator[Values]:
        """All rows, one after the other, in their canonical form."""
        everything = {"after": 0, "upto": EVERYTHING}
        statement = self._statements[f"read_{table.name}"]
        with self._transaction(), self._connected().cursor() as cursor:
            for row in cursor.stream(statement, everything, size=_ROWS_AT_ONCE):
                yield table.canonical(row)

    # --- the move

    def begin(self, mark: Mark, source: Source, set_mark: Callable[[], None] | None = None) -> None:
        """Let nobody but the transfer write here from now on, and take what no run owns.

        Args:
            set_mark: marks the source; called when nothing here can be in the way any more, so
                that a transfer that is refused leaves no mark.

        Raises:
            LedgerError: something is in the way.
        """
        order = incoming.sentence(self.where, source.url, mark.moved_at)
        with self._transaction(mark.transfer_id) as cursor:
            self._rows(cursor, "lock_tables")
            for obstacle in self._obstacles(cursor, mark.transfer_id):
                raise LedgerError(obstacle)
            incoming.guard(cursor, self.where, mark.transfer_id, order)
            self._rows(
                cursor,
                "begin_transfer",
                transfer_id=mark.transfer_id,
                source=source.url,
                began_at=mark.moved_at,
            )
            if set_mark is not None:
                set_mark()
                boundaries.reached("transfer:marked")
            for table in SHARED:
                self._write(cursor, table, source.rows(table))
        boundaries.reached("transfer:begun")

    def copy(self, transfer_id: str, source: Source, after: int, upto: int) -> Batch:
        """Take a range of runs, with all that belongs to them, and a job for each that waits.

        Takes none if they do not begin where the ledger ends: another process has moved some.
        """
        with self._transaction(transfer_id) as cursor:
            self._rows(cursor, "join_transfer")
            found = _progress(self._rows(cursor, "lock_transfer", transfer_id=transfer_id))
            if found is None:
                raise LedgerError(TAKEN_BACK)
            if found.finished or found.copied_to != after:
                return Batch(found.copied_to)
            written = [
                self._write(cursor, table, source.rows(table, after, upto)) for table in PER_RUN
            ]
            waiting = self._rows(cursor, "runs_without_job", after=after, upto=upto)
            cursor.executemany(
                self._statements["insert_job"],
                [{"run_id": row["id"], "schema": self.where.schema} for row in waiting],
            )
            self._rows(cursor, "advance_transfer", transfer_id=transfer_id, upto=upto)
            boundaries.reached("transfer:batch:before")
        boundaries.reached("transfer:batch:after")
        return Batch(upto, runs=written[0], rows=sum(written))

    def analyze(self) -> None:
        """Let the server know what it holds, before anybody asks it."""
        with self._transaction() as cursor:
            self._rows(cursor, "analyze_moved")

    def finish(self, transfer_id: str, highest: Highest) -> None:
        """Open the ledger for work."""
        with self._transaction(transfer_id) as cursor:
            self._rows(cursor, "join_transfer")
            found = _progress(self._rows(cursor, "lock_transfer", transfer_id=transfer_id))
            if found is None:
                raise LedgerError(TAKEN_BACK)
            if not found.finished:
                self._rows(cursor, "raise_ids", **asdict(highest))
                incoming.unguard(cursor, self.where)
                self._rows(cursor, "finish_transfer", transfer_id=transfer_id)

    def empty(self, transfer_id: str) -> Progress | None:
        """Delete all that the transfer has brought, unless it is finished.

        Returns:
            How far it was, with how many runs; None if it never began here.
        """
        with self._transaction(transfer_id) as cursor:
            # One that begins at this very moment is waited for.
            self._rows(cursor, "lock_tables")
            found = _progress(self._rows(cursor, "find_transfer", transfer_id=transfer_id))
            if found is not None and not found.finished:
                found = replace(found, runs=self._one(cursor, "count_moved")["runs"])
                incoming.unguard(cursor, self.where)
                for name in ("delete_moved_jobs", "empty_tables"):
                    self._rows(cursor, name)
                self._rows(cursor, "forget_transfer", transfer_id=transfer_id)
            return found

    # --- inside

    def _obstacles(self, cursor: Cursor, transfer_id: str) -> list[str]:
        shown = self.where.shown
        there = self._one(cursor, "look_around", transfer_id=transfer_id)
        found: list[str] = []
        if there["other"] is not None:
            found.append(f"{shown} is not complete: {there['other']} is being moved there.")
        elif there["runs"]:
            found.append(f"{shown} holds runs already; give a ledger, or a ?schema=, without any.")
        elif there["queues"]:
            found.append(
                f"{shown} has queues that were paused or scaled; take that back there (`durably "
                "queues`), since what was decided on the old ledger is moved along."
            )
        elif there["budgets"]:
            found.append(
                f"{shown} has shared budgets; remove them there, since those of the old ledger are "
                "moved along."
            )
        elif there["actions"]:
            found.append(
                f"{shown} has an audit trail of its own, which that of the old ledger would be "
                "mixed with; give a ledger, or a ?schema=, that was never used."
            )
        workers = drive_cursor(cursor, self.where.schema, reads.list_workers())
        return found + live_workers(workers, shown)

    def _write(self, cursor: Cursor, table: Table, rows: Iterable[Values]) -> int:
        written = 0
        with cursor.copy(self._statements[f"write_{table.name}"]) as copy:
            for row in rows:
                copy.write_row(row)
                written += 1
        return written

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            self._connection = connect(self.where)
        return self._connection

    @contextmanager
    def _transaction(self, transfer_id: str = "") -> Generator[Cursor]:
        """A transaction; one of the transfer's may write although nobody else may."""
        try:
            connection = self._connected()
            connection.execute(_BEGIN)
            connection.execute("SELECT set_config('durably.transfer', %s, true)", (transfer_id,))
            with connection.cursor(row_factory=dict_row) as cursor:
                yield cursor
            connection.execute("COMMIT")
        except psycopg.Error as error:
            self.close()
            raise translate(error, self.where.shown) from error
        except BaseException:
            # Whatever it was, the server undoes what is not committed.
            self.close()
            raise

    def _rows(self, cursor: Cursor, name: str, **params: object) -> list[dict[str, Any]]:
        cursor.execute(self._statements[name], {**params, "schema": self.where.schema})
        return cursor.fetchall() if cursor.description is not None else []

    def _one(self, cursor: Cursor, name: str, **params: object) -> dict[str, Any]:
        return self._rows(cursor, name, **params)[0]


def _progress(rows: list[dict[str, Any]]) -> Progress | None:
    if not rows:
        return None
    return Progress(rows[0]["copied_to"], rows[0]["finished_at"] is not None)
