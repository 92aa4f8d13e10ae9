"""One PostgreSQL connection: how it is opened, driven, and how its errors read.

Owns how results are read, what a session is asked to be, and error translation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple, cast

import psycopg
from psycopg import errors
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import ExecStatus, Format
from psycopg.rows import dict_row
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumperUnknown, TextLoader

from durably.errors import (
    ConfigError,
    DurablyError,
    LedgerError,
    LedgerMoved,
    LedgerUnavailable,
    SchemaError,
)
from durably.ledger.columns import EARLIEST, LATEST
from durably.ledger.operations import Operation, Row
from durably.ledger.postgres.statements import parameters, statements
from durably.ledger.postgres.url import PATIENCE, PostgresUrl

LOCK_SECONDS = 10
"""How long a write waits for a row that another transaction holds, before it is tried again."""

FROZEN_SECONDS = 5
"""How long a transaction may stand still before the server ends it.

Its process is frozen, and the run that it holds must be free to be given to another.
"""

BEGIN_WRITE = cast(
    LiteralString,
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
    f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; "
    f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_SECONDS}s'",
)
BEGIN_READ = cast(
    LiteralString,
    # A frozen reader holds no run, but keeps the server from clearing away what nobody needs.
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "
    f"SET LOCAL idle_in_transaction_session_timeout = '{FROZEN_SECONDS}s'",
)
IMPATIENT: LiteralString = "lock_timeout = '200ms'"
"""For transactions of several jobs: while one waits for a lock, the others' locks are held."""

SYNCHRONOUS: LiteralString = "; SET LOCAL synchronous_commit = on"

_SETTINGS: LiteralString = """
    SELECT current_setting('synchronous_commit') <> 'off',
           current_setting('default_transaction_isolation') = 'read committed'
"""

LOST = (
    psycopg.InterfaceError,
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.ConnectionException,
    errors.ReadOnlySqlTransaction,
    errors.IdleInTransactionSessionTimeout,
    errors.FeatureNotSupported,
)
"""After these a connection is not used again. The server may have become a standby, or a
migration may have changed what prepared statements return."""

REFUSED = "DUR01"
"""What durably's own triggers answer, while another ledger is being moved here."""

MIXED_SESSIONS = (errors.DuplicatePreparedStatement, errors.InvalidSqlStatementName)
"""Somebody else's prepared statements are there, or one's own are not."""

TRY_AGAIN = (errors.DeadlockDetected, errors.SerializationFailure)


class _Text(StrDumperUnknown):
    """Text as PostgreSQL can hold it: a NUL, or half a character, becomes a mark."""

    def dump(self, obj: str) -> bytes:
        return obj.replace("\x00", "\ufffd").encode("utf-8", "replace")


class _Time(Loader):
    """A time that Python has: what is before or after all of them, such as ``infinity``, is the
    first or the last."""

    def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
        super().__init__(oid, context)
        # Psycopg's own, which is in C where psycopg is.
        usual = psycopg.adapters.get_loader(oid, Format.TEXT)
        assert usual is not None, "psycopg knows its own types"
        self._usual = usual(oid, context)

    def load(self, data: Buffer) -> datetime:
        try:
            return self._usual.load(data)
        except psycopg.DataError:
            text = bytes(data)
            return EARLIEST if text.startswith(b"-") or text.endswith(b"BC") else LATEST


def connect(url: PostgresUrl) -> psycopg.Connection[Any]:
    """Open a connection that begins no transaction by itself.

    Raises:
        LedgerUnavailable: the server cannot be reached, or lets nobody in.
    """
    try:
        connection = psycopg.connect(url.conninfo, autocommit=True, **options(url))
    except psycopg.Error as error:
        raise _translated(error, url.shown) from error
    adapt(connection.adapters)
    return connection


class Settings(NamedTuple):
    """What a session's transactions are, unless they say otherwise.

    Attributes:
        waits: for the disk, at their end.
        sees_others: what others have committed by the time of each statement.
    """

    waits: bool
    sees_others: bool

    @property
    def usual(self) -> bool:
        """Whether nothing need be said."""
        return self.waits and self.sees_others


def settings_of(connection: psycopg.Connection[Any]) -> Settings:
    """The settings of a session."""
    row = connection.execute(_SETTINGS).fetchone()
    assert row is not None, "settings always have values"
    return Settings(*row)


def options(url: PostgresUrl) -> dict[str, Any]:
    """What psycopg is told for every connection, besides the URL."""
    told: dict[str, Any] = {
        "prepare_threshold": 5 if url.prepare else None,
        "application_name": "durably",
        "client_encoding": "UTF8",
    }
    # Of several hosts, the one that takes writes: after a failover that is another one.
    usual = {"target_session_attrs": "read-write", **PATIENCE}
    return told | {name: value for name, value in usual.items() if name not in url.conninfo}


def adapt(adapters: AdaptersMap) -> None:
    """Read JSON as the text that it is, and any time; write any text."""
    adapters.register_loader("json", TextLoader)
    adapters.register_loader("jsonb", TextLoader)
    adapters.register_loader("timestamptz", _Time)
    adapters.register_dumper(str, _Text)
    # Psycopg's own chooses a type for each number, and each choice is another prepared statement.
    adapters.register_dumper(int, Int8Dumper)


def drive[T](
    connection: psycopg.Connection[Any],
    schema: str,
    operation: Operation[T],
    *,
    alone: bool = False,
) -> T:
    """Run an operation on a connection, inside whatever transaction is open there.

    Args:
        alone: that none is.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        return drive_cursor(cursor, schema, operation, alone=alone)


def drive_cursor[T](
    cursor: psycopg.Cursor[dict[str, Any]],
    schema: str,
    operation: Operation[T],
    *,
    alone: bool = False,
) -> T:
    """Run an operation on a cursor whose rows are dicts, and that knows text as `adapt` does."""
    queries = statements(schema)
    try:
        statement = next(operation)
        while True:
            cursor.execute(queries[statement.name], parameters(statement, schema, alone=alone))
            statement = operation.send(rows_of(cursor))
    except StopIteration as end:
        return end.value


def rows_of(cursor: psycopg.Cursor[dict[str, Any]]) -> Sequence[Row]:
    """What a statement returned, if it returns anything."""
    # Not `description`: it makes an object of every column.
    result = cursor.pgresult
    return cursor.fetchall() if result is not None and result.status == ExecStatus.TUPLES_OK else ()


def translate(error: BaseException, shown: str) -> BaseException:
    """What a driver's error means to the ledger; anything else is returned as it is."""
    if isinstance(error, DurablyError) or not isinstance(error, psycopg.Error):
        return error
    result = _translated(error, shown)
    result.__cause__ = error
    return result


def _translated(error: psycopg.Error, shown: str) -> Exception:
    said = " ".join(str(error).split()) or type(error).__name__
    missing = (errors.UndefinedTable, errors.UndefinedFunction, errors.InvalidSchemaName)
    result: Exception
    if isinstance(error, (*missing, errors.UndefinedColumn)):
        result = SchemaError(
            f"{shown} has no durably tables as they should be ({said}); run `durably migrate`."
        )
    elif isinstance(error, MIXED_SESSIONS):
        result = ConfigError(
            f"{shown} is behind a pooler that hands each transaction to another session ({said}); "
            "say ?prepare=off&notify=off in the URL, or connect to the server itself."
        )
    elif error.sqlstate == REFUSED:
        result = LedgerMoved(error.diag.message_primary or said)
    elif isinstance(error, errors.LockNotAvailable):
        result = LedgerUnavailable(
            f"{shown}: another transaction held a row for {LOCK_SECONDS} s; nothing was written."
        )
    elif isinstance(error, errors.InsufficientPrivilege):
        result = LedgerUnavailable(f"{shown} cannot be used by this user: {said}.")
    elif isinstance(error, (errors.DiskFull, errors.InsufficientResources)):
        result = LedgerUnavailable(f"{shown}: {said}; nothing was written.")
    elif isinstance(error, (psycopg.OperationalError, *LOST)):
        result = LedgerUnavailable(f"{shown} is not available: {said}.")
    elif isinstance(error, (errors.DataError, errors.IntegrityError)):
        result = LedgerError(f"{shown} refused what was to be written: {said}.")
    else:
        result = error
    return result
