"""A tool's own transaction on the ledger's SQLite file, committed together with its result.

Owns the connection lent to the tool; whose turn it is to have one is `turns`', what is recorded
with the tool's writes the ledger's.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from durably import boundaries
from durably.errors import LedgerError, LedgerUnavailable
from durably.ledger.listeners import Committed
from durably.ledger.operations import Operation
from durably.ledger.sqlite.connection import (
    BEGIN_SECONDS,
    Clock,
    begin_immediate,
    connect,
    drive,
    translate,
)
from durably.ledger.sqlite.turns import Turn, Turns


class ToolConnection(sqlite3.Connection):
    """A connection lent to a tool: the transaction's end is not the tool's to decide.

    A tool in a thread goes on when its attempt is stopped. To close a connection while a statement
    runs on it crashes the process, so each statement takes its turn, and `end` waits for it.

    Attributes:
        enqueued: whether a run was enqueued in its transaction, which others have to hear of.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.turn = threading.RLock()
        self.over = self.enqueued = False

    def cursor(self, factory: Any = None) -> sqlite3.Cursor:
        return super().cursor(factory or _ToolCursor)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        return self.cursor().executemany(*args)

    def commit(self) -> None:
        raise LedgerError(
            "This transaction commits together with the tool's result; remove commit()."
        )

    def rollback(self) -> None:
        raise LedgerError("Raise an exception to roll this transaction back.")

    def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
        raise LedgerError("executescript() would commit; use execute() for each statement.")

    def end(self) -> None:
        """Close it; what is not committed is rolled back (SQLite docs, "sqlite3_close")."""
        self.over = True
        while not self.turn.acquire(timeout=0.01):
            self.interrupt()
        try:
            self.close()
        finally:
            self.turn.release()


class _ToolCursor(sqlite3.Cursor):
    """A cursor of a `ToolConnection`, taking turns with whoever ends it."""

    def execute(self, *args: Any) -> Any:
        with self._turn():
            return super().execute(*args)

    def executemany(self, *args: Any) -> Any:
        with self._turn():
            return super().executemany(*args)

    def fetchone(self) -> Any:
        with self._turn():
            return super().fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        with self._turn():
            return super().fetchmany(*args, **kwargs)

    def fetchall(self) -> Any:
        with self._turn():
            return super().fetchall()

    def __next__(self) -> Any:
        with self._turn():
            return super().__next__()

    @contextmanager
    def _turn(self) -> Generator[None]:
        connection = self.connection
        assert isinstance(connection, ToolConnection)
        with connection.turn:
            if connection.over:
                raise LedgerError("This transaction is over: it was rolled back.")
            yield


def _deny_transaction_control(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_TRANSACTION else sqlite3.SQLITE_OK


class SqliteTransaction:
    """A transaction on the ledger's own file for one tool call (see `ToolTransaction`)."""

    def __init__(
        self,
        path: Path,
        turns: Turns,
        clock: Clock,
        check: Callable[[], None],
        committed: Committed,
    ) -> None:
        self._path = path
        self._turns = turns
        self._clock = clock
        self._check = check
        self._committed = committed
        self._turn: Turn | None = None
        self._connection: ToolConnection | None = None
        self._lost = False
        self._lock = threading.Lock()
        self._closed = False

    @property
    def begun(self) -> bool:
        return self._connection is not None

    @property
    def lost(self) -> bool:
        return self._lost

    def begin(self) -> sqlite3.Connection:
        if self._connection is None:
            turn = self._ask()
            with self._in_time(turn):
                turn.wait(BEGIN_SECONDS)
            self._begin()
        return self._open()

    async def begin_async(self) -> sqlite3.Connection:
        if self._connection is None:
            # Not in a thread: there are few, and whoever has the file needs one to commit.
            turn = self._ask()
            with self._in_time(turn):
                await turn.wait_async(BEGIN_SECONDS)
            await asyncio.to_thread(self._begin)
        return self._open()

    async def commit[T](self, operation: Operation[T], *, progress: bool = False) -> T:
        return await asyncio.to_thread(self._commit, operation, progress)

    def rollback(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            turn, self._turn = self._turn, None
        try:
            if connection is not None:
                connection.end()
        finally:
            if turn is not None:
                turn.end()

    async def close(self) -> None:
        with self._lock:
            self._closed = True
        self.rollback()

    def _ask(self) -> Turn:
        with self._lock:
            self._check_going()
            if self._turn is not None:
                raise LedgerError(
                    "This transaction is being begun already: begin it once, and share its "
                    "connection."
                )
            turn = self._turn = self._turns.ask()
        return turn

    @contextmanager
    def _in_time(self, turn: Turn) -> Generator[None]:
        try:
            yield
        except BaseException as error:
            with self._lock:
                if self._turn is turn:
                    self._turn = None
            if not isinstance(error, TimeoutError):
                raise
            self._lost = True
            raise LedgerUnavailable(
                f"{self._path} is locked: for {BEGIN_SECONDS:g} s another tool of this process has "
                "had its transaction open. Keep a tool short once it is."
            ) from error

    def _check_going(self) -> None:
        if self._closed:
            raise LedgerError("The attempt is over; this transaction cannot begin any more.")

    def _open(self) -> ToolConnection:
        connection = self._connection
        if connection is None:
            raise LedgerError("This transaction is over, or was not begun.")
        return connection

    def _begin(self) -> None:
        try:
            self._lend(self._opened())
        except BaseException:
            self.rollback()
            raise

    def _opened(self) -> ToolConnection:
        self._check()
        connection: ToolConnection = connect(self._path, self._clock, ToolConnection)
        try:
            begin_immediate(connection)
        except sqlite3.Error as error:
            connection.close()
            meaning = translate(error, self._path)
            self._lost = isinstance(meaning, LedgerUnavailable)
            raise meaning from error
        connection.set_authorizer(_deny_transaction_control)
        return connection

    def _lend(self, connection: ToolConnection) -> None:
        with self._lock:
            if not self._closed:
                self._connection = connection
                return
        # The attempt was stopped while its tool waited here, in a thread, for the lock.
        connection.close()
        self._check_going()

    def _commit[T](self, operation: Operation[T], progress: bool) -> T:
        connection = self._open()
        try:
            result = drive(connection, operation, self._clock)
            connection.set_authorizer(None)
            boundaries.reached("transaction:before_commit")
            connection.execute("COMMIT")
            boundaries.reached("transaction:after_commit")
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        finally:
            # Also before anybody looks what became of it: it holds the lock that they wait for.
            self.rollback()
        self._committed(progress=progress and not connection.enqueued)
        return result
