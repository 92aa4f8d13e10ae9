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
from durably.ledger.sqlite.nudges import Nudges

log = logging.getLogger(__name__)

SOON_SECONDS = 0.001
"""How often to look for a commit that is being made."""

BUSY_SECONDS = 0.015
"""How often to look while this process commits itself."""


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
    """

    def __init__(self, path: Path, seconds: float, check: Callable[[], None]) -> None:
        self._path = path
        self._check = check
        self._seconds = seconds
        self._listeners: list[Listener] = []
        self._told_at = -math.inf
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
        self._told_at = time.monotonic()
        self._tell()

    def _tell(self) -> None:
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
        looker: _Looker | None = None
        seen: int | None = None
        while not stop.is_set():
            try:
                if looker is None:
                    self._check()
                    looker = _Looker(self._path, self._seconds)
                quiet = time.monotonic() - self._told_at > self._seconds
                version = looker.version_after(seen, quiet=quiet)
            except (sqlite3.Error, LedgerUnavailable):
                # The file is gone or unreadable for now: look again, and count it as a change.
                if looker is not None:
                    looker.close()
                looker, version = None, -1
                time.sleep(self._seconds)
            if version != seen:
                # Also at the first look: something may have been committed since `subscribe`.
                seen = version
                self._tell()
        if looker is not None:
            looker.close()


class _Looker:
    """Looks at a file's version: from time to time, and soon after it was written to.

    The kernel tells of a commit's writes while it is being made. From then on it is looked for
    every millisecond until it shows.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        # Looking must not bring a file into being that was deleted.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        self._seconds = seconds
        self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        self._nudges = Nudges(path.with_name(f"{path.name}-wal"))

    def version_after(self, seen: int | None, *, quiet: bool) -> int:
        """The version after a wait: as soon as it is another one than ``seen``.

        Args:
            quiet: whether this process commits nothing itself at the moment. Of its own commits
                everybody has been told; each would wake them once more.
        """
        if seen is None:
            return self._version()
        if not quiet:
            time.sleep(min(self._seconds, BUSY_SECONDS))
            self._nudges.wait(0.0)
        elif self._nudges.wait(self._seconds):
            give_up_at = time.monotonic() + self._seconds
            while (version := self._version()) == seen and time.monotonic() < give_up_at:
                time.sleep(SOON_SECONDS)
            return version
        return self._version()

    def close(self) -> None:
        self._nudges.close()
        self._connection.close()

    def _version(self) -> int:
        return self._connection.execute("PRAGMA data_version").fetchone()[0]
