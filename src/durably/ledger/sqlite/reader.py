"""Who reads a SQLite file, and in which thread.

Owns the connections that only read. They wait for nobody, and nobody for them: readers of a file in
WAL mode see what was committed when they began. What is `brief` is read in the event loop that asks
for it, for the reason that `writer` gives; all else in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from durably.ledger.database import Clock
from durably.ledger.lanes import Answer, Job, Lane, tell
from durably.ledger.operations import Operation, begun
from durably.ledger.sqlite.connection import connect, drive, translate
from durably.ledger.sqlite.loops import OnLoops

log = logging.getLogger(__name__)


class Reader:
    """A thread that reads, and a connection for event loops.

    Args:
        check_file: raises if the path does not name the ledger's file any more.
        on_loops: whether event loops read.

    Raises:
        LedgerUnavailable, LedgerCorrupt: the file cannot be opened.
    """

    def __init__(
        self, path: Path, clock: Clock, check_file: Callable[[], None], on_loops: OnLoops
    ) -> None:
        self._path = path
        self._clock = clock
        self._check_file = check_file
        self._on_loops = on_loops
        self._connection: sqlite3.Connection = connect(path, clock)
        try:
            self._loops_connection: sqlite3.Connection = connect(path, clock)
        except BaseException:
            self._connection.close()
            raise
        # After a crash somebody repairs the log, and others wait for that: in the thread.
        self._loops_connection.execute("PRAGMA busy_timeout=0")
        self._loops_lock = threading.Lock()
        self._open = True
        self._lane = Lane("durably-reader", [partial(self._answer, self._connection)])

    async def run[T](self, operation: Callable[[], Operation[T]], *, brief: bool = False) -> T:
        """Read; cancelled before it has begun, it is not done.

        Args:
            brief: whether it takes what `operations.brief` says.
        """
        if brief and self._on_loops.allowed:
            # Who reads again and again lets others have their turn.
            await asyncio.sleep(0)
            found = self._read_at_once(operation)
            if found is not None:
                return found[0]
        return await self._lane.run(operation)

    def stop(self) -> None:
        """Do what has been asked for, and close the connections."""
        self._lane.stop()
        self._connection.close()
        with self._loops_lock:
            self._open = False
            self._loops_connection.close()

    def _read_at_once[T](self, operation: Callable[[], Operation[T]]) -> tuple[T] | None:
        """What was found; None if another loop is reading, or SQLite refused: the thread reads."""
        if not self._loops_lock.acquire(blocking=False):
            return None
        try:
            if not self._open:
                return None
            with self._on_loops.timed():
                return (self._in_transaction(self._loops_connection, operation),)
        except sqlite3.Error as error:
            log.debug("a read is begun anew: %s", error)
            return None
        finally:
            self._loops_lock.release()

    def _answer(self, connection: sqlite3.Connection, jobs: list[Job]) -> None:
        for job in jobs:
            try:
                result = self._in_transaction(connection, job.operation)
            except Exception as error:
                tell([Answer(job, error=translate(error, self._path))])
            else:
                tell([Answer(job, result)])

    def _in_transaction(
        self, connection: sqlite3.Connection, operation: Callable[[], Operation[Any]]
    ) -> Any:
        """Run it over one state of the file, however many statements it takes.

        One that is `alone` sees one without being told to.
        """
        self._check_file()
        first, reading = begun(operation())
        if first is None or first.alone:
            return drive(connection, reading, self._clock)
        connection.execute("BEGIN")
        try:
            return drive(connection, reading, self._clock)
        finally:
            connection.execute("COMMIT")
