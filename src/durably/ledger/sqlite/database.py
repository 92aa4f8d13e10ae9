"""The ledger's database in one SQLite file: a writer with group commit, and a reader.

Owns the file and change notices; how writes become commits is `writer`'s, who reads is `reader`'s.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from durably.errors import ConfigError, LedgerClosed, LedgerUnavailable
from durably.ledger.database import BLOCKING_SECONDS, Clock, Listener
from durably.ledger.following import following
from durably.ledger.operations import Operation, is_brief, is_progress
from durably.ledger.sqlite.batches import Batches
from durably.ledger.sqlite.connection import (
    check_identity,
    connect,
    identity_of,
)
from durably.ledger.sqlite.guest import in_transaction, run_as_guest
from durably.ledger.sqlite.health import examine_file, ledger_version
from durably.ledger.sqlite.loops import OnLoops
from durably.ledger.sqlite.reader import Reader
from durably.ledger.sqlite.schema import upgrade
from durably.ledger.sqlite.transaction import SqliteTransaction
from durably.ledger.sqlite.turns import Turns
from durably.ledger.sqlite.watch import ChangeWatcher
from durably.ledger.sqlite.writer import Writer
from durably.records import Finding


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


class SqliteDatabase:
    """One SQLite file, used by any number of processes.

    WAL with ``synchronous=FULL``: a commit that was waited for survives power loss (SQLite docs,
    "PRAGMA synchronous"). Speed comes from group commit: everything that waits for a commit
    shares the next one.

    Args:
        path: the file; created on first open.
        clock: what ``durably_now()`` answers; the wall clock by default. For tests.
        watch_seconds: how often to look whether another process has committed.
        on_loops: False leaves all statements to threads, also what may run in an event loop.
    """

    dialect = "sqlite"

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock | None = None,
        watch_seconds: float = 0.03,
        on_loops: bool = True,
    ) -> None:
        self.path = Path(path)
        self.url = f"sqlite:///{self.path}"
        self.versions = (0, 0)
        self.oban_tables: str | None = None
        self.clock = clock
        self._watch_seconds = watch_seconds
        self._clock = clock or utc_now
        self._following: AbstractContextManager[None] = nullcontext()
        self._on_loops = OnLoops(ever=on_loops)
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._watcher = ChangeWatcher(self.path, watch_seconds, self._check_file, self._find_others)
        self._turns = Turns()
        self._lock = threading.Lock()
        self._file = self.path
        self._opened: tuple[int, int] | None = None

    def beside(self) -> SqliteDatabase:
        # For a life that ends at a boundary (`testing`): what is part of it is told by its threads.
        return SqliteDatabase(
            self._file, clock=self.clock, watch_seconds=self._watch_seconds, on_loops=False
        )

    async def open(self) -> None:
        if self._writer is None:
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
                self.versions = upgrade(write_connection)
                reader = Reader(self.path, self._clock, self._check_file, self._on_loops)
            except BaseException:
                write_connection.close()
                raise
            # Absolute from here on: a process that changes its folder keeps its ledger.
            self._file = self.path.absolute()
            self._opened = identity_of(self._file)
            self._reader = reader
            self._watcher.start(self._file)
            self._following = following(self.clock, self._watcher.notify)
            self._following.__enter__()
            # Last: with it, it is open.
            self._writer = Writer(
                Batches(write_connection, self._clock, self.path, self._check_file, self._turns),
                lambda progress: self._watcher.notify(progress=progress),
                self._on_loops,
            )

    async def migrate(self) -> None:
        await self.open()

    async def migration_sql(self, found: int | None) -> str:
        raise ConfigError(
            f"{self.url} needs no script: whoever opens a ledger on SQLite brings it up to date."
        )

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
            writer, self._writer = self._writer, None
            self._following.__exit__(None, None, None)
            self._watcher.stop()
            writer.stop()
            self._reader.stop()
            self._reader = None

    async def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self._in_use(self._writer).run(
            partial(operation, *args, **kwargs),
            brief=is_brief(operation),
            progress=is_progress(operation),
        )

    async def read[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        job = partial(operation, *args, **kwargs)
        return await self._in_use(self._reader).run(job, brief=is_brief(operation))

    def write_blocking[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        future = self._in_use(self._writer).submit(partial(operation, *args, **kwargs))
        try:
            return future.result(BLOCKING_SECONDS)
        except TimeoutError as error:
            raise LedgerUnavailable(f"{self.path}: no commit in {BLOCKING_SECONDS:g} s.") from error

    async def run_on[T](self, connection: object, operation: Operation[T]) -> T:
        return run_as_guest(connection, self._file, self._clock, operation)

    def transaction(self) -> SqliteTransaction:
        return SqliteTransaction(
            self._file, self._turns, self._clock, self._check_file, self._watcher.notify
        )

    @contextmanager
    def subscribe(self, listener: Listener, *, progress: bool = False) -> Generator[None]:
        with self._watcher.subscribe(listener, progress=progress):
            yield

    def _in_use[T](self, part: T | None) -> T:
        if part is None:
            raise LedgerClosed(f"{self.path} is not open; call `await app.open()` first.")
        return part

    def _check_file(self) -> None:
        check_identity(self._file, self._opened)

    def _find_others(self) -> bool:
        """Whether anybody else has committed, as far as this process does not know yet."""
        writer = self._writer
        return writer is not None and writer.find_others()
