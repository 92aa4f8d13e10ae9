"""The ledger's writes on a connection of the application's own, inside its open transaction.

Owns finding that connection and leaving it fit for its owner; when to commit is the owner's.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from durably.errors import ConfigError
from durably.ledger.database import Clock
from durably.ledger.operations import Operation
from durably.ledger.sqlite.connection import (
    drive,
    identity_of,
    register_functions,
    translate,
)
from durably.ledger.sqlite.transaction import ToolConnection


def run_as_guest[T](connection: object, path: Path, clock: Clock, operation: Operation[T]) -> T:
    """Run an operation inside the caller's transaction; one that fails leaves nothing in it.

    Raises:
        TypeError: the connection is none that durably knows.
        ConfigError: it is on another file, or no transaction is open and none would begin.
        LedgerError: the database refused.
    """
    own = sqlite_connection_of(connection)
    _check_file(own, path)
    _know_functions(own, clock)
    if isinstance(own, ToolConnection):
        own.enqueued = True
    try:
        _join_transaction(own)
        own.execute("SAVEPOINT durably")
        try:
            result = drive(own, operation, clock)
        except BaseException:
            if own.in_transaction:
                own.execute("ROLLBACK TO durably")
                own.execute("RELEASE durably")
            raise
        own.execute("RELEASE durably")
        return result
    except sqlite3.Error as error:
        raise translate(error, path) from error


def in_transaction(connection: object) -> bool:
    """True if the caller's transaction has begun.

    Raises:
        TypeError: the connection is none that durably knows.
    """
    return sqlite_connection_of(connection).in_transaction


def sqlite_connection_of(connection: object) -> sqlite3.Connection:
    """The sqlite3 connection inside what a caller passes as ``conn``.

    Accepts a ``sqlite3.Connection`` or a SQLAlchemy ``Connection`` or ``Session``, recognised by
    their attributes so that SQLAlchemy need not be installed.

    Raises:
        TypeError: it is none of these.
    """
    outer: Any = connection
    if callable(getattr(type(connection), "connection", None)) and not _is_async(connection):
        outer = outer.connection()  # Session -> Connection
    inner = outer
    for attribute in ("connection", "driver_connection"):
        if not isinstance(inner, sqlite3.Connection) and not _is_async(inner):
            inner = getattr(inner, attribute, inner)
    if not isinstance(inner, sqlite3.Connection):
        raise TypeError(
            f"conn is a {type(connection).__name__}; pass an open sqlite3 connection, or a "
            "SQLAlchemy Connection or Session on the ledger's SQLite file."
        )
    begun = getattr(outer, "in_transaction", None)
    if callable(begun) and not begun():
        # As its own first statement would: else its commit would not commit what is not its own.
        outer.begin()
    return inner


def _is_async(connection: object) -> bool:
    """True for SQLAlchemy's, whose sqlite3 connection belongs to another thread."""
    return type(connection).__name__.startswith("Async")


def _check_file(own: sqlite3.Connection, path: Path) -> None:
    files = [str(row[2]) for row in own.execute("PRAGMA database_list").fetchall()]
    if identity_of(path) not in [identity_of(Path(file)) for file in files if file]:
        raise ConfigError(
            f"conn is on {files[0] or 'a database in memory'}, not on the ledger's file {path}."
        )


def _know_functions(own: sqlite3.Connection, clock: Clock) -> None:
    # SQLite refuses to define a function anew while a cursor of the caller's is being read.
    try:
        own.execute("SELECT durably_now()").fetchone()
    except sqlite3.OperationalError:
        register_functions(own, clock)


def _join_transaction(own: sqlite3.Connection) -> None:
    """Begin the caller's transaction where Python would do so for their own next write."""
    if own.in_transaction:
        return
    if own.autocommit != sqlite3.LEGACY_TRANSACTION_CONTROL or own.isolation_level is None:
        raise ConfigError(
            "conn has no open transaction, and begins none by itself: execute BEGIN first, so "
            "that the run exists exactly if you commit."
        )
    own.execute(f"BEGIN {own.isolation_level}")
