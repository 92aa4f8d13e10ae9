"""The ledger's writes on a connection of the application's own, inside its open transaction.

Owns finding that connection and leaving it fit for its owner; when to commit is the owner's.
"""

from __future__ import annotations

from typing import Any

import psycopg
from anyio import to_thread
from psycopg import AsyncCursor, Cursor, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from durably.errors import ConfigError
from durably.ledger.operations import Operation
from durably.ledger.postgres.connection import adapt, drive_cursor, translate
from durably.ledger.postgres.lent import LentAsyncConnection, LentConnection
from durably.ledger.postgres.statements import parameters, statements
from durably.ledger.postgres.url import PostgresUrl

type Own = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

_EXISTS = "SELECT to_regclass(%s) IS NOT NULL AS known"

# Told when the owner commits, and only then.
_NOTIFY = "SELECT pg_notify(%s, '')"


async def run_as_guest[T](
    connection: object, where: PostgresUrl, ledger_id: str, operation: Operation[T]
) -> T:
    """Run an operation inside the caller's transaction; one that fails leaves nothing in it.

    Raises:
        TypeError: the connection is none that durably knows.
        ConfigError: it is on another database, or its transaction can take nothing.
        LedgerError: the database refused.
    """
    own = await own_connection(connection)
    _check_state(own)
    if isinstance(own, (LentConnection, LentAsyncConnection)):
        own.enqueued = True
    try:
        if isinstance(own, psycopg.AsyncConnection):
            return await _run_async(own, where, ledger_id, operation)
        # In a thread: it may wait for a transaction that goes on in the caller's event loop.
        return await to_thread.run_sync(_run_sync, own, where, ledger_id, operation)
    except psycopg.Error as error:
        raise translate(error, where.shown) from error


def _check_state(own: Own) -> None:
    if own.closed:
        raise ConfigError("conn is closed: the run could not be committed with anything.")
    if own.info.encoding != "utf-8":
        raise ConfigError(
            f"conn's client_encoding is {own.info.parameter_status('client_encoding')}, which "
            "cannot say what prompts may hold: connect with client_encoding=UTF8."
        )
    status = own.info.transaction_status
    if own.autocommit and status is TransactionStatus.IDLE:
        raise ConfigError(
            "conn has no open transaction, and begins none by itself: open one first (`with "
            "conn.transaction():`), so that the run exists exactly if you commit."
        )
    if status is TransactionStatus.INERROR:
        raise ConfigError(
            "conn's transaction has failed already, and nothing can be committed with it: roll it "
            "back first."
        )


def _run_sync[T](
    own: psycopg.Connection[Any], where: PostgresUrl, ledger_id: str, operation: Operation[T]
) -> T:
    # A cursor of durably's own making: the caller's class may want another kind of statement.
    with Cursor(own, row_factory=dict_row) as cursor:
        adapt(cursor.adapters)
        cursor.execute("SELECT 1")  # Begins the transaction, so that the next is a savepoint.
        with own.transaction():
            cursor.execute(_EXISTS, (where.qualified("durably_schema"),))
            known = cursor.fetchone()
            if known is not None and known["known"]:
                cursor.execute(_identity(where))
                known = cursor.fetchone()
            _check_identity(known, where, ledger_id)
            result = drive_cursor(cursor, where.schema, operation)
            if where.notify:
                cursor.execute(_NOTIFY, (where.channel,))
            return result


async def _run_async[T](
    own: psycopg.AsyncConnection[Any], where: PostgresUrl, ledger_id: str, operation: Operation[T]
) -> T:
    async with AsyncCursor(own, row_factory=dict_row) as cursor:
        adapt(cursor.adapters)
        await cursor.execute("SELECT 1")
        async with own.transaction():
            await cursor.execute(_EXISTS, (where.qualified("durably_schema"),))
            known = await cursor.fetchone()
            if known is not None and known["known"]:
                await cursor.execute(_identity(where))
                known = await cursor.fetchone()
            _check_identity(known, where, ledger_id)
            result = await _drive_async(cursor, where.schema, operation)
            if where.notify:
                await cursor.execute(_NOTIFY, (where.channel,))
            return result


async def _drive_async[T](
    cursor: AsyncCursor[dict[str, Any]], schema: str, operation: Operation[T]
) -> T:
    queries = statements(schema)
    try:
        statement = next(operation)
        while True:
            await cursor.execute(queries[statement.name], parameters(statement, schema))
            rows = await cursor.fetchall() if cursor.description is not None else ()
            statement = operation.send(rows)
    except StopIteration as end:
        return end.value


def _identity(where: PostgresUrl) -> sql.Composed:
    return sql.SQL("SELECT CAST(ledger_id AS TEXT) AS ledger_id FROM {} LIMIT 1").format(
        sql.Identifier(where.schema, "durably_schema")
    )


def _check_identity(row: dict[str, Any] | None, where: PostgresUrl, ledger_id: str) -> None:
    if row is None or row.get("ledger_id") != ledger_id:
        raise ConfigError(
            f"conn is on another database than the ledger's, {where.shown}: the run could not be "
            "committed together with what you write."
        )


async def own_connection(connection: object) -> Own:
    """The psycopg connection inside what a caller passes as ``conn``.

    Accepts psycopg's own, sync or async, and SQLAlchemy's ``Connection``, ``Session``,
    ``AsyncConnection`` and ``AsyncSession`` on psycopg, recognised by their attributes so that
    SQLAlchemy need not be installed.

    Raises:
        TypeError: it is none of these.
    """
    outer: Any = connection
    if callable(getattr(type(connection), "connection", None)):
        outer = await _awaited(outer.connection())  # Session -> Connection
    inner = outer
    if hasattr(inner, "get_raw_connection"):
        inner = await inner.get_raw_connection()  # AsyncConnection -> its pool's
    for attribute in ("driver_connection", "connection", "driver_connection"):
        if not isinstance(inner, (psycopg.Connection, psycopg.AsyncConnection)):
            inner = getattr(inner, attribute, inner)
    if not isinstance(inner, (psycopg.Connection, psycopg.AsyncConnection)):
        raise TypeError(
            f"conn is a {_name_of(connection, inner)}; pass an open psycopg connection, or a "
            "SQLAlchemy Connection or Session that uses psycopg, on the ledger's database."
        )
    begun = getattr(outer, "in_transaction", None)
    if callable(begun) and not begun():
        # As its own first statement would: else its commit would not commit what is not its own.
        await _awaited(outer.begin())
    return inner  # pyright: ignore[reportUnknownVariableType]


async def _awaited(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value


def _name_of(connection: object, inner: object) -> str:
    name = type(connection).__name__
    if inner is connection or inner is None:
        module = type(connection).__module__.partition(".")[0]
        return name if module == "builtins" else f"{module} {name}"
    return f"{name} on {type(inner).__module__.partition('.')[0]}"
