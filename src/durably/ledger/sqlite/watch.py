"""Notices that something was committed to a SQLite file, by this process or any other.

Owns the watching thread; what to do about a change is the listener's business.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from durably.errors import LedgerUnavailable
from durably.ledger.database import Listener

log = logging.getLogger(__name__)


class ChangeWatcher:
    """Calls listeners after commits.

    This process's own commits are told at once. Other processes' are seen through
    ``PRAGMA data_version`` (SQLite docs), which costs microseconds: it reads shared memory, takes
    no lock and no disk access. The thread runs only while somebody listens.

    Args:
        path: the database file.
        seconds: how often to look.
        check: raises LedgerUnavailable while the path does not name the ledger's file.
    """

    def __init__(self, path: Path, seconds: float, check: Callable[[], None]) -> None:
        self._path = path
        self._check = check
        self._seconds = seconds
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def subscribe(self, listener: Listener) -> Generator[None]:
        """Listen until the block ends."""
        with self._lock:
            self._listeners = [*self._listeners, listener]
            self._begin_thread()
        try:
            yield
        finally:
            with self._lock:
                remaining = list(self._listeners)
                remaining.remove(listener)
                self._listeners = remaining
                if not remaining:
                    self._end_thread()

    def notify(self) -> None:
        """Tell every listener; called after each commit of this process."""
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                # Its event loop may have closed. The caller is the writer's thread: it goes on.
                log.exception("a listener could not be told of a commit")

    def start(self, path: Path) -> None:
        """Go on telling of other processes, if anybody listens; ``path`` is absolute."""
        with self._lock:
            self._path = path
            if self._listeners:
                self._begin_thread()

    def stop(self) -> None:
        """End the thread; listeners are told nothing more of other processes."""
        with self._lock:
            self._end_thread()

    def _begin_thread(self) -> None:
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._loop, args=(self._stop,), name="durably-watch", daemon=True
            )
            self._thread.start()

    def _end_thread(self) -> None:
        if self._stop is not None:
            self._stop.set()
        self._thread = self._stop = None

    def _loop(self, stop: threading.Event) -> None:
        connection: sqlite3.Connection | None = None
        seen: int | None = None
        while not stop.is_set():
            # Half the CPU time of an event's timed wait, which this idle loop mostly is.
            time.sleep(self._seconds)
            try:
                if connection is None:
                    self._check()
                    # Looking must not bring a file into being that was deleted.
                    uri = f"{self._path.absolute().as_uri()}?mode=rw"
                    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
                version: int = connection.execute("PRAGMA data_version").fetchone()[0]
            except (sqlite3.Error, LedgerUnavailable):
                # The file is gone or unreadable for now: look again, and count it as a change.
                if connection is not None:
                    connection.close()
                connection, version = None, -1
            if version != seen:
                # Also at the first look: something may have been committed since `subscribe`.
                seen = version
                self.notify()
        if connection is not None:
            connection.close()
