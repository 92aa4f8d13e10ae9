"""One SQLite connection: how it is opened, driven, and how its errors read.

Owns pragmas, SQL functions and error translation.
"""

from __future__ import annotations

import random
import sqlite3
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

from durably.errors import (
    DurablyError,
    LedgerCorrupt,
    LedgerError,
    LedgerMoved,
    LedgerUnavailable,
    SchemaError,
)
from durably.ledger.columns import moment, timestamp
from durably.ledger.database import Clock
from durably.ledger.operations import Operation, Row
from durably.ledger.sqlite.statements import after, statements

BUSY_SECONDS = 5.0
"""How long SQLite itself waits for another process's commit before it answers 'locked'."""

_UNSEEN: Row = {}
"""A row that was changed, and of which nothing is looked at."""

BEGIN_SECONDS = 60.0
"""How long a writer keeps asking for the lock; longer than any transaction should be open."""

MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.0005, 0.02
"""How long it waits until it asks once more: most commits are over within a millisecond. Who has
asked often asks less often."""


def connect(path: Path, clock: Clock, factory: type[sqlite3.Connection] | None = None) -> Any:
    """Open the file with the pragmas that the promises need.

    Raises:
        LedgerUnavailable: the file or its folder cannot be opened or written.
        LedgerCorrupt: the file is not a SQLite database.
    """
    try:
        connection = sqlite3.connect(
            path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=factory or sqlite3.Connection,
        )
    except sqlite3.Error as error:
        raise translate(error, path) from error
    try:
        apply_pragmas(connection)
    except sqlite3.Error as error:
        connection.close()
        raise translate(error, path) from error
    connection.row_factory = sqlite3.Row
    # Text that is not UTF-8 fails no statement: what it is in is found to be damaged.
    connection.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
    register_functions(connection, clock)
    return connection


def apply_pragmas(connection: sqlite3.Connection) -> None:
    """What every connection to a ledger is set to."""
    _set_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def identity_of(path: Path) -> tuple[int, int] | None:
    """Which file the path names now; None if none does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_identity(path: Path, opened: tuple[int, int] | None) -> None:
    """Refuse to go on with a file that has lost its name.

    SQLite would write into it for as long as this process has it open, and nobody would ever find
    what was committed (SQLite docs, "How To Corrupt", "Unlinking or renaming a database file").

    Raises:
        LedgerUnavailable: the path names no file, or another one than was opened.
    """
    if identity_of(path) != opened:
        raise LedgerUnavailable(
            f"{path} was deleted or replaced while it was open. Put the file back, or restart to "
            "use what is there now."
        )


def _set_wal(connection: sqlite3.Connection) -> None:
    # Switching to WAL needs a moment alone with the file and does not use the busy timeout.
    _patiently(connection, "PRAGMA journal_mode=WAL", BEGIN_SECONDS)


def register_functions(connection: sqlite3.Connection, clock: Clock) -> None:
    """Give the connection the functions that statements use, as PostgreSQL's ledger has them."""

    def from_now(seconds: float | None) -> str:
        return after(clock(), seconds or 0.0)

    def ms_since(at: str | None) -> int | None:
        if at is None:
            return None
        return max(0, round((clock() - moment(at)) / timedelta(milliseconds=1)))

    connection.create_function("durably_now", 0, lambda: timestamp(clock()))
    connection.create_function("durably_after", 1, from_now)
    connection.create_function("durably_ms_since", 1, ms_since)


def begin_immediate(connection: sqlite3.Connection, seconds: float = BEGIN_SECONDS) -> None:
    """Take the write lock, patiently: another process may hold it for a moment.

    Args:
        seconds: for how long to ask, at least once.
    """
    _patiently(connection, "BEGIN IMMEDIATE", seconds)


def _patiently(connection: sqlite3.Connection, statement: LiteralString, seconds: float) -> None:
    """Execute what somebody else's lock may refuse, until it is done or the time is over."""
    deadline = time.monotonic() + seconds
    pause = 2 * MIN_PAUSE_SECONDS
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(MIN_PAUSE_SECONDS, pause))
            pause = min(2 * pause, MAX_PAUSE_SECONDS)


def data_version(connection: sqlite3.Connection) -> int:
    """Which stays the same as long as nobody else has committed anything (SQLite docs,
    "PRAGMA data_version")."""
    return connection.execute("PRAGMA data_version").fetchone()[0]


def drive[T](connection: sqlite3.Connection, operation: Operation[T], clock: Clock) -> T:
    """Run an operation on a connection, inside whatever transaction is open there.

    Args:
        clock: what is now, for all its statements; asked once.

    Raises:
        LedgerError: a number is too large for any column.
    """
    queries = statements()
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    try:
        statement = next(operation)
        now = clock()
        while True:
            if statement.instead is not None and statement.name not in queries:
                # At the same time: a retry comes due after a pause from when the attempt ended.
                rows = drive(connection, statement.instead(), lambda: now)
                statement = operation.send(rows)
                continue
            prepared = queries[statement.name]
            try:
                bound = prepared.bound(statement.params, now)
                if statement.counted and prepared.counted is not None:
                    cursor.execute(prepared.counted, bound)
                    statement = operation.send([_UNSEEN] * cursor.rowcount)
                    continue
                cursor.execute(prepared.text, bound)
            except OverflowError as error:
                raise LedgerError(f"The ledger refused what was to be written: {error}.") from error
            rows = () if cursor.description is None else cursor.fetchall()
            statement = operation.send(rows)
    except StopIteration as end:
        return end.value


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def translate(error: BaseException, path: Path) -> BaseException:
    """What a driver's error means to the ledger; anything else is returned as it is."""
    if isinstance(error, DurablyError) or not isinstance(error, sqlite3.Error):
        return error
    result: LedgerError
    whole_code = getattr(error, "sqlite_errorcode", 0) or 0
    code = whole_code & 0xFF
    if whole_code == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        result = LedgerMoved(str(error))  # The only triggers there are: see `moved`.
    elif code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        result = LedgerCorrupt(f"{path} is not a usable SQLite database: {error}.")
    elif code == sqlite3.SQLITE_FULL:
        result = LedgerUnavailable(f"{path}: the disk is full; nothing was written.")
    elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        result = LedgerUnavailable(f"{path} cannot be written: {error}.")
    elif code == sqlite3.SQLITE_CANTOPEN:
        result = LedgerUnavailable(f"{path} cannot be opened: {_why_not_opened(path)}.")
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        result = LedgerUnavailable(f"{path} is locked by another process.")
    elif code == sqlite3.SQLITE_IOERR:
        name = getattr(error, "sqlite_errorname", "")
        result = LedgerUnavailable(
            f"{path} could not be read or written: {error} ({name}); nothing was written. Is the "
            "disk full, or the file as large as it may be?"
        )
    elif "no such table: durably_" in str(error):
        result = SchemaError(f"{path} has no durably tables ({error}); run `durably migrate`.")
    else:
        return error
    result.__cause__ = error
    return result


def _why_not_opened(path: Path) -> str:
    try:
        if path.is_dir():
            return "it is a folder"
        if not path.parent.exists():
            return f"the folder {path.parent} does not exist"
        if not path.parent.is_dir():
            return f"{path.parent} is no folder"
    except OSError as error:
        return str(error.strerror)
    return "check that it and its folder may be written, and that the disk is not full"
