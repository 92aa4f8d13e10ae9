"""The ledger's database in one SQLite file: a writer thread with group commit, and a reader thread.

Owns threads, connections and change notices; statements and their meaning are the ledger's.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from durably import boundaries
from durably.errors import ConfigError, LedgerClosed, LedgerUnavailable
from durably.ledger.database import BLOCKING_SECONDS, Listener
from durably.ledger.operations import Operation
from durably.ledger.schema import upgrade_sqlite
from durably.ledger.sqlite_connection import (
    Clock,
    SqliteTransaction,
    begin_immediate,
    check_identity,
    connect,
    drive,
    identity_of,
    translate,
)
from durably.ledger.sqlite_guest import in_transaction, run_as_guest
from durably.ledger.sqlite_health import examine_file, ledger_version
from durably.ledger.sqlite_watch import ChangeWatcher
from durably.records import Finding

MAX_BATCH = 256
"""How many waiting writes share one commit at most; bounds how long the first of them waits."""


def utc_now() -> datetime:
    """The wall clock; tests pass another."""
    return datetime.now(UTC)


@dataclass(slots=True)
class _Job:
    operation: Callable[[], Operation[Any]]
    future: Future[Any]


class _Lane:
    """A thread with a connection of its own that works through jobs in order."""

    def __init__(self, name: str, work: Callable[[list[_Job]], None]) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._work = work
        self._open = True
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def submit[T](self, operation: Callable[[], Operation[T]]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            # Behind the last job nobody would ever look at this one.
            if not self._open:
                raise LedgerClosed("The ledger has been closed meanwhile.")
            self._jobs.put(_Job(operation, future))
        return future

    def stop(self) -> None:
        with self._lock:
            self._open = False
            self._jobs.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            last = False
            while len(batch) < MAX_BATCH:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                    break
                batch.append(more)
            self._work(batch)
            if last:
                return


class SqliteDatabase:
    """One SQLite file, used by any number of processes.

    WAL with ``synchronous=FULL``: a commit that was waited for survives power loss (SQLite docs,
    "PRAGMA synchronous"). Speed comes from group commit: everything that waits for a commit
    shares the next one.

    Args:
        path: the file; created on first open.
        clock: what ``durably_now()`` answers; tests set it.
        watch_seconds: how often to look whether another process has committed.
    """

    dialect = "sqlite"

    def __init__(
        self, path: str | Path, *, clock: Clock = utc_now, watch_seconds: float = 0.03
    ) -> None:
        self.path = Path(path)
        self.url = f"sqlite:///{self.path}"
        self.versions = (0, 0)
        self._clock = clock
        self._writer: _Lane | None = None
        self._reader: _Lane | None = None
        self._watcher = ChangeWatcher(self.path, watch_seconds, self._check_file)
        self._lock = threading.Lock()
        self._file = self.path
        self._opened: tuple[int, int] | None = None

    async def open(self) -> None:
        await asyncio.to_thread(self.open_blocking)

    async def open_beside(self, connection: object) -> None:
        if self._writer is None and in_transaction(connection) and not await self.exists():
            raise ConfigError(
                f"{self.path} holds no ledger yet, and none can be made while your transaction is "
                "open: call `await app.open()` before it begins."
            )
        await self.open()

    def open_blocking(self) -> None:
        """`open`, for callers without an event loop."""
        with self._lock:
            if self._writer is not None:
                return
            write_connection = connect(self.path, self._clock)
            try:
                self.versions = upgrade_sqlite(write_connection)
                read_connection = connect(self.path, self._clock)
            except BaseException:
                write_connection.close()
                raise
            # Absolute from here on: a process that changes its folder keeps its ledger.
            self._file = self.path.absolute()
            self._opened = identity_of(self._file)
            self._writer = _Lane(
                "durably-writer", lambda jobs: self._commit(write_connection, jobs)
            )
            self._reader = _Lane("durably-reader", lambda jobs: self._answer(read_connection, jobs))
            self._connections = (write_connection, read_connection)
            self._watcher.start(self._file)

    async def exists(self) -> bool:
        return await asyncio.to_thread(ledger_version, self.path) > 0

    async def examine(self) -> list[Finding]:
        return await asyncio.to_thread(examine_file, self.path)

    async def close(self) -> None:
        await asyncio.to_thread(self.close_blocking)

    def close_blocking(self) -> None:
        """`close`, for callers without an event loop."""
        with self._lock:
            if self._writer is None or self._reader is None:
                return
            self._watcher.stop()
            self._writer.stop()
            self._reader.stop()
            for connection in self._connections:
                connection.close()
            self._writer = self._reader = None

    async def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        job = partial(operation, *args, **kwargs)
        return await asyncio.wrap_future(self._lane(self._writer).submit(job))

    async def read[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        job = partial(operation, *args, **kwargs)
        return await asyncio.wrap_future(self._lane(self._reader).submit(job))

    def write_blocking[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        future = self._lane(self._writer).submit(partial(operation, *args, **kwargs))
        try:
            return future.result(BLOCKING_SECONDS)
        except TimeoutError as error:
            raise LedgerUnavailable(f"{self.path}: no commit in {BLOCKING_SECONDS:g} s.") from error

    def run_on[T](self, connection: object, operation: Operation[T]) -> T:
        return run_as_guest(connection, self._file, self._clock, operation)

    def transaction(self) -> SqliteTransaction:
        return SqliteTransaction(self._file, self._clock, self._check_file, self._watcher.notify)

    @contextmanager
    def subscribe(self, listener: Listener) -> Generator[None]:
        with self._watcher.subscribe(listener):
            yield

    def _lane(self, lane: _Lane | None) -> _Lane:
        if lane is None:
            raise LedgerClosed(f"{self.path} is not open; call `await app.open()` first.")
        return lane

    def _check_file(self) -> None:
        check_identity(self._file, self._opened)

    def _commit(self, connection: sqlite3.Connection, batch: list[_Job]) -> None:
        """Run every job of the batch in one transaction; a job that raises undoes only itself."""
        jobs = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if not jobs:
            return
        outcomes: list[tuple[_Job, object, BaseException | None]] = []
        try:
            self._check_file()
            begin_immediate(connection)
            for job in jobs:
                outcomes.append((job, *_attempt(connection, job, alone=len(jobs) == 1)))
            boundaries.reached("commit:before")
            connection.execute("COMMIT")
            boundaries.reached("commit:after")
        except Exception as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            failure = translate(error, self.path)
            for job in jobs:
                job.future.set_exception(failure)
            return
        for job, result, error in outcomes:
            if error is not None:
                job.future.set_exception(translate(error, self.path))
            else:
                job.future.set_result(result)
        self._watcher.notify()

    def _answer(self, connection: sqlite3.Connection, batch: list[_Job]) -> None:
        for job in batch:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                self._check_file()
                connection.execute("BEGIN")
                try:
                    result = drive(connection, job.operation())
                finally:
                    connection.execute("COMMIT")
            except Exception as error:
                job.future.set_exception(translate(error, self.path))
            else:
                job.future.set_result(result)


def _attempt(
    connection: sqlite3.Connection, job: _Job, *, alone: bool
) -> tuple[object, BaseException | None]:
    if not alone:
        connection.execute("SAVEPOINT job")
    try:
        result = drive(connection, job.operation())
    except Exception as error:
        # A full disk rolls the whole transaction back: then nobody's write of this batch exists.
        if not connection.in_transaction or alone:
            raise
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return None, error
    if not alone:
        connection.execute("RELEASE job")
    return result, None
