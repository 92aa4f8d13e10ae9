"""Notices that something was committed to a SQLite file, by this process or any other.

Owns the watching thread; what to do about a change is the listener's business.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from durably.errors import LedgerUnavailable
from durably.ledger.database import Listener
from durably.ledger.listeners import Listeners
from durably.ledger.sqlite.nudges import Nudges

log = logging.getLogger(__name__)

SOON_SECONDS = 0.0001
"""How soon to look again for a commit that is being made, at first."""

SHARE = 8
"""A commit is seen after this part of the time that it took, at the latest: a slow disk's is looked
for as often as a fast one's."""

REST_SECONDS = 0.001
"""How long not to look after news: whoever was told has work to do, and the commit that was the
news leaves nudges behind."""


class ChangeWatcher:
    """Calls listeners after commits.

    This process's own commits are told at once. Other processes' are seen through
    ``PRAGMA data_version`` (SQLite docs), which costs microseconds: it reads shared memory, takes
    no lock and no disk access. The thread runs only while somebody listens. On Linux the kernel
    wakes it; it would find out without.

    Args:
        path: the database file.
        seconds: how often to look.
        check: raises LedgerUnavailable while the path does not name the ledger's file.
        by_others: whether what was committed is, as far as nobody knows yet, another's.
    """

    def __init__(
        self,
        path: Path,
        seconds: float,
        check: Callable[[], None],
        by_others: Callable[[], bool],
    ) -> None:
        self._path = path
        self._check = check
        self._by_others = by_others
        self._seconds = seconds
        self._listeners = Listeners()
        self._told_at = self._busy_until = -math.inf
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None
        self._thread: threading.Thread | None = None

    @contextmanager
    def subscribe(self, listener: Listener, *, progress: bool) -> Generator[None]:
        """Listen until the block ends (`Database.subscribe`)."""
        with self._lock:
            self._listeners.add(listener, progress=progress)
            self._begin_thread()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener, progress=progress)
                if not self._listeners:
                    self._end_thread()

    def notify(self, *, progress: bool = False) -> None:
        """Tell every listener; called after each commit of this process.

        Args:
            progress: that no other process has committed since the last one, and that this was
                nothing but progress.
        """
        now = time.monotonic()
        if now - self._told_at < self._seconds:
            self._busy_until = now + self._seconds
        self._told_at = now
        self._listeners.tell(progress=progress)

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
        looker: _Looker | None = None
        seen: int | None = None
        while not stop.is_set():
            try:
                if looker is None:
                    self._check()
                    looker = _Looker(self._path, self._seconds)
                busy_seconds = self._busy_until - time.monotonic()
                if seen is not None and busy_seconds > 0:
                    # This process commits again and again, and finds out with each commit. To look
                    # meanwhile, this thread would take the interpreter from those that work.
                    time.sleep(busy_seconds)
                    continue
                version = looker.version_after(seen)
                news = seen is None or (version != seen and self._by_others())
            except (sqlite3.Error, LedgerUnavailable):
                # The file is gone or unreadable for now: look again, and count it as a change.
                if looker is not None:
                    looker.close()
                looker, version, news = None, -1, seen != -1
                time.sleep(self._seconds)
            seen = version
            if news:
                # Also at the first look: something may have been committed since `subscribe`.
                self._listeners.tell()
                time.sleep(REST_SECONDS)
        if looker is not None:
            looker.close()


class _Looker:
    """Looks at a file's version: from time to time, and soon after it was written to.

    The kernel tells of a commit's writes while it is being made. From then on it is looked for
    again and again, until it shows.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        # Looking must not bring a file into being that was deleted.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        self._seconds = seconds
        self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        self._nudges = Nudges(path.with_name(f"{path.name}-wal"))

    def version_after(self, seen: int | None) -> int:
        """The version after a wait: as soon as it is another one than ``seen``."""
        if seen is None:
            return self._version()
        if self._nudges.wait(self._seconds):
            began = time.monotonic()
            while (version := self._version()) == seen:
                waited = time.monotonic() - began
                if waited > self._seconds:
                    break
                time.sleep(max(SOON_SECONDS, waited / SHARE))
            return version
        return self._version()

    def close(self) -> None:
        self._nudges.close()
        self._connection.close()

    def _version(self) -> int:
        return self._connection.execute("PRAGMA data_version").fetchone()[0]
