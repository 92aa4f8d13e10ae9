"""A tool's own transaction on the ledger's PostgreSQL database, committed together with its result.

Owns the connection lent to the tool; what is recorded with the tool's writes is the ledger's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg

from durably import boundaries
from durably.errors import LedgerError
from durably.ledger.operations import Operation
from durably.ledger.postgres.connection import BEGIN_WRITE, connect, drive, translate
from durably.ledger.postgres.url import PostgresUrl


class PostgresTransaction:
    """A transaction of its own for one tool call (see `ToolTransaction`)."""

    def __init__(
        self,
        where: PostgresUrl,
        clock: Callable[[], datetime] | None,
        committed: Callable[[], None],
    ) -> None:
        self._where = where
        self._clock = clock
        self._committed = committed
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def connection(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            raise LedgerError("This transaction is over, or was not begun.")
        return self._connection

    def begin(self) -> None:
        connection = connect(self._where)
        connection.execute(BEGIN_WRITE)
        self._connection = connection

    def run[T](self, operation: Operation[T]) -> T:
        try:
            return drive(self.connection, self._where.schema, operation)
        except psycopg.Error as error:
            raise translate(error, self._where.shown) from error

    def commit(self) -> None:
        boundaries.reached("transaction:before_commit")
        try:
            self.connection.execute("COMMIT")
        except psycopg.Error as error:
            raise translate(error, self._where.shown) from error
        boundaries.reached("transaction:after_commit")
        self.rollback()
        self._committed()

    def rollback(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        self.rollback()
