"""One lane's connection: opened when it is needed, again when it was lost; jobs in transactions.

Owns what is tried again and when; what an operation writes is the ledger's.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, LiteralString, cast

import psycopg
from psycopg import errors

from durably import boundaries
from durably.ledger.budgets import spend_together
from durably.ledger.database import Clock
from durably.ledger.lanes import Answer, Job, tell
from durably.ledger.listeners import Committed
from durably.ledger.operations import Operation, Statement, begun, postponing
from durably.ledger.postgres.connection import (
    BEGIN_READ,
    BEGIN_WRITE,
    IMPATIENT,
    LOCK_SECONDS,
    LOST,
    SYNCHRONOUS,
    TRY_AGAIN,
    connect,
    drive,
    settings_of,
    translate,
)
from durably.ledger.postgres.url import PostgresUrl

log = logging.getLogger(__name__)

_PATIENT = cast(LiteralString, f"SET lock_timeout = '{LOCK_SECONDS}s'")

TRIES = 5
"""How often a transaction is tried that the server chose to undo, as it may any (PostgreSQL docs,
"Deadlocks"), and one whose connection was lost before it was asked to commit."""


class Session:
    """A connection and the jobs that are done on it, one batch at a time.

    Args:
        clock: what ``durably_now()`` answers in its transactions; None: the server's time.
        committed: called after each commit, and told whether it was nothing but progress.
    """

    def __init__(self, where: PostgresUrl, clock: Clock | None, committed: Committed) -> None:
        self._where = where
        self._clock = clock
        self._committed = committed
        self._connection: psycopg.Connection[Any] | None = None
        self._begin_write: LiteralString = BEGIN_WRITE
        self._usual = False

    def close(self) -> None:
        """Let go of the connection; the next job opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def write(self, jobs: list[Job]) -> None:
        """Do every job in one transaction; if one raises, each in a transaction of its own."""
        if len(jobs) > 1:
            if self._write_together(jobs):
                return
            # Those that wait for somebody else's lock come last.
            jobs = [job for job in jobs if not self._write_one(job, patient=False)]
        for job in jobs:
            self._write_one(job, patient=True)

    def _write_together(self, jobs: list[Job]) -> bool:
        """Do the jobs in one transaction; False if one of them did not let the others through."""
        try:
            results = self._transact(jobs, patient=False)
        except Exception as error:
            if self._connection is not None:
                log.debug("a batch of %d is done one by one: %s", len(jobs), error)
                return False
            # Lost, perhaps while it committed: who waits may know how to find out.
            failure = translate(error, self._where.shown)
            tell([Answer(job, error=failure) for job in jobs])
        else:
            self._answer(jobs, results)
        return True

    def _write_one(self, job: Job, *, patient: bool) -> bool:
        """Do a job; False if it met somebody else's lock and was not to wait for it."""
        try:
            results = self._alone(job) if patient else None
            if results is None:
                results = self._transact([job], patient=patient)
        except Exception as error:
            if not patient and isinstance(error, errors.LockNotAvailable):
                return False
            tell([Answer(job, error=translate(error, self._where.shown))])
        else:
            self._answer([job], results)
        return True

    def read(self, jobs: list[Job]) -> None:
        """Do every job on one snapshot, which begins now; if one raises, each on its own."""
        try:
            results = self._read(jobs)
        except Exception as error:
            if len(jobs) > 1:
                log.debug("a batch of %d is read one by one: %s", len(jobs), error)
                for job in jobs:
                    self.read([job])
                return
            tell([Answer(jobs[0], error=translate(error, self._where.shown))])
        else:
            tell([Answer(job, result) for job, result in zip(jobs, results, strict=True)])

    def _answer(self, jobs: list[Job], results: list[Any]) -> None:
        # First, so that whoever waits for the commit finds it told already.
        self._committed(progress=all(job.progress for job in jobs))
        tell([Answer(job, result) for job, result in zip(jobs, results, strict=True)])

    def _alone(self, job: Job) -> list[Any] | None:
        """Do a job whose one statement needs no transaction; None if it is no such job."""
        for tries_left in reversed(range(TRIES)):
            if (first := self._lone(job)) is None:
                return None
            statement, operation = first
            connection = self._ready()
            if not self._usual:
                return None
            try:
                boundaries.reached("commit:before")
                result = drive(connection, self._where.schema, operation, alone=True)
                boundaries.reached("commit:after")
                return [result]
            except errors.DivisionByZero:
                return None  # Of a step a part was there: what that means is said in parts.
            except BaseException as error:
                lost = self._is_lost(connection, error)
                # What was sent may have been done, unless the server says that it was not.
                undone = isinstance(error, (*TRY_AGAIN, errors.FeatureNotSupported))
                if not tries_left or not (undone or (lost and statement.repeatable)):
                    raise
        raise AssertionError("the last try returns or raises")

    def _lone(self, job: Job) -> tuple[Statement, Operation[Any]] | None:
        """A job's one statement and its operation, if it needs no transaction around it."""
        if self._clock is not None:
            return None  # A clock's time is a transaction's.
        first, operation = begun(job.operation())
        return (first, operation) if first is not None and first.alone else None

    def _transact(self, jobs: list[Job], *, patient: bool) -> list[Any]:
        for tries_left in reversed(range(TRIES)):
            connection = self._begun("" if patient else f"; SET LOCAL {IMPATIENT}", writing=True)
            ending, schema = False, self._where.schema
            postponed: list[Statement] = []
            try:
                results = [
                    drive(connection, schema, postponing(job.operation(), postponed))
                    for job in jobs
                ]
                drive(connection, schema, spend_together(postponed))
                boundaries.reached("commit:before")
                ending = True
                connection.execute("COMMIT")
                boundaries.reached("commit:after")
                return results
            except BaseException as error:
                self._undo(connection, error)
                # Jobs that met in a deadlock would meet again.
                met = isinstance(error, TRY_AGAIN) and len(jobs) > 1
                # Once COMMIT is on its way, nobody knows whether it was done.
                if not tries_left or met or not self._undone(error, known=not ending):
                    raise
        raise AssertionError("the last try returns or raises")

    def _read(self, jobs: list[Job]) -> list[Any]:
        for tries_left in reversed(range(TRIES)):
            if len(jobs) == 1 and (first := self._lone(jobs[0])) is not None:
                connection = self._ready()
                try:
                    return [drive(connection, self._where.schema, first[1], alone=True)]
                except BaseException as error:
                    if not tries_left or not self._is_lost(connection, error):
                        raise
                    continue
            connection = self._begun(writing=False)
            try:
                results = [drive(connection, self._where.schema, job.operation()) for job in jobs]
                connection.execute("COMMIT")
                return results
            except BaseException as error:
                self._undo(connection, error)
                if not tries_left or not self._undone(error, known=True):
                    raise
        raise AssertionError("the last try returns or raises")

    def _undone(self, error: BaseException, *, known: bool) -> bool:
        """True if the server undid the transaction, not the operation: it may be tried again."""
        lost = self._connection is None and isinstance(error, psycopg.Error)
        known = known or isinstance(error, errors.IdleInTransactionSessionTimeout)
        return isinstance(error, TRY_AGAIN) or (lost and known)

    def _begun(self, how: LiteralString = "", *, writing: bool) -> psycopg.Connection[Any]:
        """A connection in a new transaction. One that was lost while it was idle is replaced."""
        for tries_left in reversed(range(TRIES)):
            fresh = self._connection is None
            try:
                connection = self._connection or self._open()
                connection.execute((self._begin_write if writing else BEGIN_READ) + how)
                if (clock := self._clock) is not None:
                    now = clock().isoformat()
                    connection.execute("SELECT set_config('durably.now', %s, true)", (now,))
                return connection
            except psycopg.Error as error:
                self.close()
                if (
                    fresh
                    or not tries_left
                    or not isinstance(error, (psycopg.OperationalError, *LOST))
                ):
                    raise
        raise AssertionError("the last try returns or raises")

    def _ready(self) -> psycopg.Connection[Any]:
        """A connection, of which it is not known that the server has ended it meanwhile."""
        connection = self._connection
        if connection is not None:
            try:
                connection.pgconn.consume_input()  # What has arrived; it does not wait for more.
            except psycopg.OperationalError:
                self.close()
        return self._connection or self._open()

    def _is_lost(self, connection: psycopg.Connection[Any], error: BaseException) -> bool:
        """Whether the connection can not be used again; then it is let go of."""
        lost = connection.closed or isinstance(error, LOST)
        if lost:
            self.close()
        return lost

    def _open(self) -> psycopg.Connection[Any]:
        self._connection = connection = connect(self._where)
        settings = settings_of(connection)
        self._begin_write = BEGIN_WRITE + ("" if settings.waits else SYNCHRONOUS)
        self._usual = settings.usual
        if self._where.prepare:  # Otherwise there may be a pooler, and the session others' as well.
            connection.execute(_PATIENT)
        return connection

    def _undo(self, connection: psycopg.Connection[Any], error: BaseException) -> None:
        if self._is_lost(connection, error):
            return
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
            return
        self.close()
