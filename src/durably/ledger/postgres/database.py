"""The ledger's database in PostgreSQL: writer and reader lanes, each with connections of its own.

Owns threads, connections and when a transaction is tried again; statements are the ledger's.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Hashable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from durably.errors import LedgerClosed, LedgerUnavailable
from durably.ledger.database import BLOCKING_SECONDS, Clock, Listener
from durably.ledger.following import following
from durably.ledger.lanes import Job, Lane
from durably.ledger.operations import Operation, is_brief, is_progress
from durably.ledger.postgres.guest import run_as_guest
from durably.ledger.postgres.health import examine_server
from durably.ledger.postgres.loop_lane import LoopLane
from durably.ledger.postgres.notices import Notices
from durably.ledger.postgres.schema import ledger_version, needed_script, upgrade, verify
from durably.ledger.postgres.session import Session
from durably.ledger.postgres.spare import KEPT, SpareSessions
from durably.ledger.postgres.transaction import PostgresTransaction
from durably.ledger.postgres.url import PostgresUrl
from durably.records import Claim, Finding, NewRun, Notice

READERS = 2
"""How many connections read at the same time."""


class PostgresDatabase:
    """One schema of a PostgreSQL database, used by any number of processes and machines.

    Commits are durable when they return: ``synchronous_commit`` is turned on where it is off
    (PostgreSQL docs, "Asynchronous Commit"). What waits for the same connection shares a commit.

    Args:
        url: see `PostgresUrl`.
        clock: what ``durably_now()`` answers; the server's own clock by default. For tests.
    """

    dialect = "postgres"

    def __init__(self, url: str, *, clock: Clock | None = None, on_loops: bool = True) -> None:
        self._whole_url = url
        self.where = PostgresUrl.parse(url)
        self.url = self.where.shown
        self.versions = (0, 0)
        self.oban_tables: str | None = None
        self.clock = self._clock = clock
        self._following: AbstractContextManager[None] = nullcontext()
        self._lock = threading.Lock()
        self._ledger_id = ""
        # A clock's time is a transaction's; and what is prepared has to be there the next time.
        self._on_loops = on_loops and clock is None and self.where.prepare
        self._writer: LoopLane | None = None
        self._reader: LoopLane | None = None
        self._beat: Lane | None = None
        self._sessions: list[Session] = []
        self._notices = Notices(self.where)
        self._spares = SpareSessions(0)

    # --- opening and closing

    def beside(self) -> PostgresDatabase:
        # For a life that ends at a boundary (`testing`): what is part of it is told by its threads.
        return PostgresDatabase(self._whole_url, clock=self.clock, on_loops=False)

    async def open(self) -> None:
        if self._writer is None:
            await asyncio.to_thread(self._open)

    async def open_beside(self, connection: object) -> None:
        # Opening makes nothing here, so that the caller's transaction is in nobody's way.
        await self.open()

    async def migrate(self) -> None:
        upgraded = await asyncio.to_thread(upgrade, self.where)
        self.versions, self.oban_tables = (upgraded.found, upgraded.now), upgraded.oban
        await self.open()

    def _open(self) -> None:
        with self._lock:
            if self._writer is not None:
                return
            version, self._ledger_id = verify(self.where)
            if self.versions[1] != version:
                self.versions = (version, version)
            readers = self._lane("durably-reader", READERS, Session.read)
            self._reader = LoopLane(self.where, readers, ever=self._on_loops)
            self._beat = self._lane("durably-beat", 1, Session.write)
            self._notices.start()
            # Behind a pooler, a session belongs to nobody for longer than a transaction.
            self._spares = SpareSessions(KEPT if self.where.prepare else 0)
            self._following = following(self.clock, self._notices.changed)
            self._following.__enter__()
            # Last: with it, it is open.
            writers = self._lane("durably-writer", self.where.lanes, Session.write)
            self._writer = LoopLane(self.where, writers, self._notices.changed, ever=self._on_loops)

    def _lane(self, name: str, count: int, work: Callable[[Session, list[Job]], None]) -> Lane:
        sessions = [Session(self.where, self._clock, self._notices.changed) for _ in range(count)]
        self._sessions += sessions
        return Lane(name, [partial(work, session) for session in sessions])

    async def migration_sql(self, found: int | None) -> str:
        return await asyncio.to_thread(needed_script, self.where, found)

    async def exists(self) -> bool:
        return await asyncio.to_thread(ledger_version, self.where) > 0

    async def examine(self) -> list[Finding]:
        return await asyncio.to_thread(examine_server, self.where)

    async def close(self) -> None:
        for lane in (self._writer, self._reader):
            if lane is not None:
                await lane.leave()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            if self._writer is None or self._reader is None or self._beat is None:
                return
            writer, self._writer = self._writer, None
            self._following.__exit__(None, None, None)
            self._spares.close()
            for lane in (writer.threads, self._reader.threads, self._beat):
                lane.stop()
            self._notices.stop()
            for session in self._sessions:
                session.close()
            self._sessions = []
            self._reader = self._beat = None

    # --- operations

    async def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        job = partial(operation, *args, **kwargs)
        subject, lane = subject_of(*args), self._open_lane(self._writer)
        brief, progress = is_brief(operation), is_progress(operation)
        return await lane.run(job, subject, brief=brief, progress=progress)

    async def read[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        job = partial(operation, *args, **kwargs)
        return await self._open_lane(self._reader).run(job, brief=is_brief(operation))

    def write_blocking[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        # A lane of its own: a heartbeat never waits behind a write that waits for a row.
        future = self._open_lane(self._beat).submit(partial(operation, *args, **kwargs))
        try:
            return future.result(BLOCKING_SECONDS)
        except TimeoutError as error:
            raise LedgerUnavailable(f"{self.url}: no commit in {BLOCKING_SECONDS:g} s.") from error

    async def run_on[T](self, connection: object, operation: Operation[T]) -> T:
        return await run_as_guest(connection, self.where, self._ledger_id, operation)

    def transaction(self) -> PostgresTransaction:
        return PostgresTransaction(self.where, self._spares, self._clock, self._notices.changed)

    @contextmanager
    def subscribe(self, listener: Listener, *, progress: bool = False) -> Generator[None]:
        with self._notices.subscribe(listener, progress=progress):
            yield

    def _open_lane[L: (Lane, LoopLane)](self, lane: L | None) -> L:
        if lane is None:
            raise LedgerClosed(f"{self.url} is not open; call `await app.open()` first.")
        return lane


def subject_of(*args: object) -> Hashable:
    """What an operation with these arguments writes about, where that is certain: one run."""
    match args:
        case (Claim() as claim, *_):
            return claim.run_id
        case (Notice() as notice, *_):
            return notice.run_id
        case (NewRun() as new, *_):
            return new.key if new.unique_seconds is None else new.fingerprint
        case _:
            return None
