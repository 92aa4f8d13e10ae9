"""Notices that something was committed, told to other processes over LISTEN and NOTIFY.

Owns two threads, one that listens and one that tells; what to do about it is the listener's.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from durably.errors import LedgerUnavailable
from durably.ledger.database import Listener
from durably.ledger.postgres.connection import LOST, connect
from durably.ledger.postgres.url import PostgresUrl

log = logging.getLogger(__name__)

GAP_SECONDS = 0.02
"""Commits within this time share one notice: NOTIFY takes a lock that all sessions share."""

POLL_SECONDS = 0.5
"""How often listeners are told to look while no notices can be heard."""

ECHO_SECONDS = 5.0
"""How long this process's own notice may take to come back before notices count as lost."""

HEAR_AGAIN_SECONDS = 30.0
"""How long to poll before listening is tried again."""


class Notices:
    """Calls listeners soon after any process has committed something.

    This process's own commits are told at once. Other processes' come as notices on one channel of
    the schema. A notice carries no data: who is told looks for itself, so a lost one costs time
    only. Where none can be heard (``notify=off``; a pooler that hands each transaction to another
    session; the server restarting), listeners are told to look every half second.
    """

    def __init__(self, where: PostgresUrl) -> None:
        self._where = where
        self._channel = f"{where.schema}.durably"
        self._name = uuid.uuid4().hex[:12]
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._open = False
        self._news = threading.Event()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._unheard_since: float | None = None

    @contextmanager
    def subscribe(self, listener: Listener) -> Generator[None]:
        """Listen until the block ends."""
        with self._lock:
            self._listeners = [*self._listeners, listener]
            self._begin("durably-listen", self._listen)
        try:
            yield
        finally:
            with self._lock:
                remaining = list(self._listeners)
                remaining.remove(listener)
                self._listeners = remaining

    def start(self) -> None:
        """Tell and listen from now on."""
        with self._lock:
            self._open = True
            self._stop = threading.Event()
            if self._listeners:
                self._begin("durably-listen", self._listen)

    def stop(self) -> None:
        """Tell what is still to be told, and end both threads."""
        with self._lock:
            self._open = False
            threads, self._threads = self._threads, []
        self._stop.set()
        self._news.set()
        for thread in threads:
            thread.join(timeout=5.0)

    def changed(self) -> None:
        """Something was committed here; called in any thread."""
        self._tell_listeners()
        if self._where.notify:
            self._news.set()
            if not any(thread.name == "durably-tell" for thread in self._threads):
                with self._lock:
                    self._begin("durably-tell", self._tell)

    def _begin(self, name: str, work: Callable[[threading.Event], None]) -> None:
        if self._open and not any(thread.name == name for thread in self._threads):
            thread = threading.Thread(target=work, args=(self._stop,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                # Its event loop may have closed. The caller is a writer's thread: it goes on.
                log.exception("a listener could not be told of a commit")

    # --- telling others

    def _tell(self, stop: threading.Event) -> None:
        connection: psycopg.Connection[Any] | None = None
        while True:
            self._news.wait()
            self._news.clear()
            try:
                connection = connection or connect(self._where)
                connection.execute("SELECT pg_notify(%s, %s)", (self._channel, self._name))
                if self._unheard_since is None:
                    self._unheard_since = time.monotonic()
            except (LedgerUnavailable, psycopg.Error) as error:
                # Others look from time to time anyway; the next commit is told on a new one.
                log.debug("a notice was not sent: %s", error)
                if connection is not None:
                    connection.close()
                connection = None
            if stop.is_set():
                break
            time.sleep(GAP_SECONDS)
        if connection is not None:
            connection.close()

    # --- hearing others

    def _listen(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if not self._where.notify:
                self._poll(stop, float("inf"))
                continue
            try:
                connection = connect(self._where)
                with connection:
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
                    self._tell_listeners()  # Something may have been committed meanwhile.
                    deaf = self._hear(connection, stop)
            except (LedgerUnavailable, psycopg.OperationalError, *LOST) as error:
                log.info("no notices from %s for now: %s", self._where.shown, error)
                self._poll(stop, POLL_SECONDS)
                continue
            if deaf:
                log.warning(
                    "%s: notices don't arrive, as behind a pooler in transaction mode; looking "
                    "every %g s instead. Say ?notify=off in the URL, or connect to the server "
                    "itself.",
                    self._where.shown,
                    POLL_SECONDS,
                )
                self._poll(stop, HEAR_AGAIN_SECONDS)

    def _hear(self, connection: psycopg.Connection[Any], stop: threading.Event) -> bool:
        """Pass notices on until told to stop (False), or until they prove to be lost (True)."""
        self._unheard_since = None
        while not stop.is_set():
            heard = False
            for notice in connection.notifies(timeout=POLL_SECONDS, stop_after=1):
                if notice.payload == self._name:
                    self._unheard_since = None
                else:
                    heard = True
            if heard:
                self._tell_listeners()
            since = self._unheard_since
            if since is not None and time.monotonic() - since > ECHO_SECONDS:
                return True
        return False

    def _poll(self, stop: threading.Event, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not stop.wait(POLL_SECONDS) and time.monotonic() < until:
            self._tell_listeners()
