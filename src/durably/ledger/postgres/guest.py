"""The ledger's writes on a connection of the application's own, inside its open transaction.

Owns finding that connection and leaving it fit for its owner; when to commit is the owner's.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from durably.errors import ConfigError
from durably.ledger.operations import Operation
from durably.ledger.postgres.connection import (
    adapt,
    drive_cursor,
    parameters,
    statements,
    translate,
)
from durably.ledger.postgres.url import PostgresUrl

type Own = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


async def run_as_guest[T](
    connection: object, where: PostgresUrl, ledger_id: str, operation: Operation[T]
) -> T:
    """Run an operation inside the caller's transaction; one that fails leaves nothing in it.

    Raises:
        TypeError: the connection is none that durably knows.
        ConfigError: it is on another database, or no transaction is open and none would begin.
        LedgerError: the database refused.
    """
    own = await own_connection(connection)
    if own.autocommit and own.info.transaction_status is TransactionStatus.IDLE:
        raise ConfigError(
            "conn has no open transaction, and begins none by itself: open one first (`with "
            "conn.transaction():`), so that the run exists exactly if you commit."
        )
    try:
        if isinstance(own, psycopg.AsyncConnection):
            return await _run_async(own, where, ledger_id, operation)
        return _run_sync(own, where, ledger_id, operation)
    except psycopg.Error as error:
        raise translate(error, where.shown) from error


def _run_sync[T](
    own: psycopg.Connection[Any], where: PostgresUrl, ledger_id: str, operation: Operation[T]
) -> T:
    with own.cursor(row_factory=dict_row) as cursor:
        adapt(cursor.adapters)
        cursor.execute(_EXISTS, (f'"{where.schema}".durably_schema',))
        known = cursor.fetchone()
        if known is not None and known["known"]:
            cursor.execute(_identity(where))
            known = cursor.fetchone()
        _check(known, where, ledger_id)
        # A savepoint: the transaction has begun by now.
        with own.transaction():
            result = drive_cursor(cursor, where.schema, operation)
            if where.notify:
                cursor.execute(_NOTIFY, (where.channel,))
            return result


async def _run_async[T](
    own: psycopg.AsyncConnection[Any], where: PostgresUrl, ledger_id: str, operation: Operation[T]
) -> T:
    async with own.cursor(row_factory=dict_row) as cursor:
        adapt(cursor.adapters)
        await cursor.execute(_EXISTS, (f'"{where.schema}".durably_schema',))
        known = await cursor.fetchone()
        if known is not None and known["known"]:
            await cursor.execute(_identity(where))
            known = await cursor.fetchone()
        _check(known, where, ledger_id)
        async with own.transaction():
            result = await _drive_async(cursor, where.schema, operation)
            if where.notify:
                await cursor.execute(_NOTIFY, (where.channel,))
            return result


async def _drive_async[T](
    cursor: psycopg.AsyncCursor[dict[str, Any]], schema: str, operation: Operation[T]
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


# Told when the owner commits, and only then.
_NOTIFY = "SELECT pg_notify(%s, '')"

_EXISTS = "SELECT to_regclass(%s) IS NOT NULL AS known"


def _identity(where: PostgresUrl) -> sql.Composed:
    return sql.SQL("SELECT CAST(ledger_id AS TEXT) AS ledger_id FROM {} LIMIT 1").format(
        sql.Identifier(where.schema, "durably_schema")
    )


def _check(row: dict[str, Any] | None, where: PostgresUrl, ledger_id: str) -> None:
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
    candidate: Any = connection
    if hasattr(candidate, "connection") and callable(candidate.connection):
        candidate = candidate.connection()  # Session -> Connection, or a promise of one
        if hasattr(candidate, "__await__"):
            candidate = await candidate
    if hasattr(candidate, "get_raw_connection"):
        candidate = await candidate.get_raw_connection()
    for attribute in ("connection", "driver_connection"):
        if not isinstance(candidate, (psycopg.Connection, psycopg.AsyncConnection)):
            candidate = getattr(candidate, attribute, candidate)
    if isinstance(candidate, (psycopg.Connection, psycopg.AsyncConnection)):
        return candidate  # pyright: ignore[reportUnknownVariableType]
    raise TypeError(
        f"conn is a {type(connection).__name__}; pass an open psycopg connection, or a SQLAlchemy "
        "Connection or Session that uses psycopg, on the ledger's database."
    )
