"""A tool's own transaction on the ledger's PostgreSQL database, committed together with its result.

Owns when it begins and what is recorded last in it; the connection is `lent`'s, its session one of
`spare`'s if there is one, what is recorded with the tool's writes the ledger's.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, cast

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

from durably import boundaries
from durably.errors import LedgerError, LedgerUnavailable, TransactionEnded
from durably.ledger.database import Clock
from durably.ledger.listeners import Committed
from durably.ledger.operations import Operation, Row
from durably.ledger.postgres.connection import (
    FROZEN_SECONDS,
    LOCK_SECONDS,
    adapt,
    options,
    rows_of,
    translate,
)
from durably.ledger.postgres.lent import Lent, LentAsyncConnection, LentConnection
from durably.ledger.postgres.spare import SpareSessions
from durably.ledger.postgres.statements import parameters, statements
from durably.ledger.postgres.url import PostgresUrl

BEGIN_SECONDS = 60.0
"""How long a tool waits for a server that is away, such as one that restarts."""

PAUSE_SECONDS = 0.2
"""Pause between tries to connect."""

_BEGAN: LiteralString = "CAST(extract(epoch FROM transaction_timestamp()) * 1000000 AS bigint)"

OPENING: LiteralString = (
    f"SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT {_BEGAN} AS began"
)
"""Psycopg has sent BEGIN before it. Every statement sees the run as it is by then."""

CLOSING = cast(
    LiteralString,
    f"""
    SELECT {_BEGAN} AS began,
           set_config('lock_timeout', '{LOCK_SECONDS}s', true),
           set_config('idle_in_transaction_session_timeout', '{FROZEN_SECONDS}s', true),
           CASE WHEN current_setting('synchronous_commit') = 'off'
                THEN set_config('synchronous_commit', 'on', true) END
    """,
)
"""From here on the transaction holds the run, and may hold it for a moment only."""

type Steps[T] = Generator[tuple[LiteralString | bytes, Mapping[str, Any]], Sequence[Row], T]
"""An operation in SQL: the same for a connection that is waited for in a thread or a task."""


class PostgresTransaction:
    """A transaction on a connection of its own for one tool call (see `ToolTransaction`).

    While the tool works, nothing of the ledger is in it, and it may take its time. Then comes what
    the ledger records, which holds the run, and COMMIT: a process that is frozen in between loses
    the transaction before anybody else is given the run.
    """

    def __init__(
        self,
        where: PostgresUrl,
        spares: SpareSessions,
        clock: Clock | None,
        committed: Committed,
    ) -> None:
        self._where = where
        self._spares = spares
        self._clock = clock
        self._committed = committed
        self._connection: Lent | None = None
        self._began = 0
        self._lost = False
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def begun(self) -> bool:
        return self._connection is not None

    @property
    def lost(self) -> bool:
        connection = self._connection
        return self._lost or (connection is not None and connection.broken)

    def begin(self) -> LentConnection:
        give_up_at = time.monotonic() + BEGIN_SECONDS
        while (connection := self._connection) is None:
            try:
                spare = self._spares.take()
                if spare is None:
                    opened = LentConnection.connect(self._where.conninfo, **options(self._where))
                else:
                    opened = LentConnection(spare)
                with _ended_if_it_fails(opened):
                    began = _run(opened, _opening())
                self._lend(opened, began)
            except psycopg.Error as error:
                self._check_again(error, give_up_at)
                self._closed.wait(PAUSE_SECONDS)
        if not isinstance(connection, LentConnection):
            raise LedgerError("This transaction began with `async with`; go on with that.")
        return connection

    async def begin_async(self) -> LentAsyncConnection:
        give_up_at = time.monotonic() + BEGIN_SECONDS
        while (connection := self._connection) is None:
            try:
                spare = self._spares.take()
                if spare is None:
                    opened = await LentAsyncConnection.connect(
                        self._where.conninfo, **options(self._where)
                    )
                else:
                    opened = LentAsyncConnection(spare)
                with _ended_if_it_fails(opened):
                    began = await _run_async(opened, _opening())
                self._lend(opened, began)
            except psycopg.Error as error:
                self._check_again(error, give_up_at)
                await asyncio.sleep(PAUSE_SECONDS)
        if not isinstance(connection, LentAsyncConnection):
            raise LedgerError("This transaction began with `with`, in a thread; go on with that.")
        return connection

    async def commit[T](self, operation: Operation[T], *, progress: bool = False) -> T:
        connection = self._connection
        if connection is None:
            raise LedgerError("This transaction is over, or was not begun.")
        steps = self._closing(operation)
        try:
            if isinstance(connection, LentAsyncConnection):
                result = await _run_async(connection, steps)
            else:
                result = await asyncio.to_thread(_run, connection, steps)
            self._keep()
        except errors.InFailedSqlTransaction as error:
            raise LedgerError(
                "A statement failed in this transaction, and PostgreSQL undid the whole of it: "
                "let its error out of the tool, or run it inside `connection.transaction()`."
            ) from error
        except psycopg.Error as error:
            raise translate(error, self._where.shown) from error
        finally:
            # Also before anybody looks what became of it: it must not be in their way.
            await self._end()
        self._committed(progress=progress and not connection.enqueued)
        return result

    def rollback(self) -> None:
        if (connection := self._taken_back()) is not None:
            self._lost = self._lost or connection.broken
            connection.end()

    async def close(self) -> None:
        with self._lock:
            self._closed.set()
        await self._end()

    def _taken_back(self) -> Lent | None:
        with self._lock:
            connection, self._connection = self._connection, None
        return connection

    def _keep(self) -> None:
        """Its session is as good as a new one, once what is left of the tool is out of it."""
        if (connection := self._taken_back()) is not None:
            self._spares.give(connection)

    async def _end(self) -> None:
        connection = self._connection
        if isinstance(connection, LentConnection) and connection.in_use:
            await asyncio.to_thread(self.rollback)
        else:
            self.rollback()

    def _lend(self, connection: Lent, began: int) -> None:
        with self._lock:
            if self._connection is None and not self._closed.is_set():
                self._connection, self._began = connection, began
                return
        connection.end()
        self._check_open()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise LedgerError("The attempt is over; this transaction cannot begin any more.")

    def _check_again(self, error: psycopg.Error, give_up_at: float) -> None:
        """Raise the error unless it is worth trying once more."""
        self._check_open()
        meaning = translate(error, self._where.shown)
        away = isinstance(meaning, LedgerUnavailable)
        if not away or time.monotonic() > give_up_at:
            self._lost = away
            raise meaning from error
        self._spares.clear()

    def _closing[T](self, operation: Operation[T]) -> Steps[T]:
        (row,) = yield CLOSING, {}
        if row["began"] != self._began:
            raise TransactionEnded(
                "The tool ended its transaction by itself, with COMMIT or ROLLBACK in SQL: what it "
                "wrote could not be committed together with its result. Take them out of it."
            )
        if self._clock is not None:
            yield "SELECT set_config('durably.now', %(now)s, true)", {"now": f"{self._clock()}"}
        result = yield from _in_sql(operation, self._where.schema)
        boundaries.reached("transaction:before_commit")
        yield "COMMIT", {}
        boundaries.reached("transaction:after_commit")
        return result


@contextmanager
def _ended_if_it_fails(connection: Lent) -> Generator[None]:
    try:
        yield
    except BaseException:
        connection.end()
        raise


def _opening() -> Steps[int]:
    (row,) = yield OPENING, {}
    return row["began"]


def _in_sql[T](operation: Operation[T], schema: str) -> Steps[T]:
    queries = statements(schema)
    try:
        statement = next(operation)
        while True:
            rows = yield queries[statement.name], parameters(statement, schema)
            statement = operation.send(rows)
    except StopIteration as end:
        return end.value


def _run[T](connection: LentConnection, steps: Steps[T]) -> T:
    # Not with a cursor of the connection's own, which would be a tool's.
    with psycopg.Cursor(connection, row_factory=dict_row) as cursor:
        adapt(cursor.adapters)
        try:
            query, params = next(steps)
            while True:
                cursor.execute(query, params or None)
                while cursor.nextset():
                    continue
                query, params = steps.send(rows_of(cursor))
        except StopIteration as end:
            return end.value


async def _run_async[T](connection: LentAsyncConnection, steps: Steps[T]) -> T:
    async with psycopg.AsyncCursor(connection, row_factory=dict_row) as cursor:
        adapt(cursor.adapters)
        try:
            query, params = next(steps)
            while True:
                await cursor.execute(query, params or None)
                while cursor.nextset():
                    continue
                rows = await cursor.fetchall() if cursor.description is not None else ()
                query, params = steps.send(rows)
        except StopIteration as end:
            return end.value
