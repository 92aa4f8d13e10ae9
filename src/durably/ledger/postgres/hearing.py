"""Hearing that other processes have committed something.

Owns the thread that listens, and what it does while nothing can be heard.
"""

from __future__ import annotations

import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

import psycopg
from psycopg import sql

from durably.errors import LedgerError
from durably.ledger.postgres.connection import connect
from durably.ledger.postgres.telling import JOIN_SECONDS, PROGRESS, Echo
from durably.ledger.postgres.url import PostgresUrl

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
"""How often listeners are told to look while no notices can be heard."""

HEAR_AGAIN_SECONDS = 30.0
"""How long to poll before listening is tried again where notices don't arrive."""


class News(Protocol):
    """Who is told that something may have been committed."""

    def __call__(self, *, progress: bool = False) -> None: ...


class Ear:
    """A thread that listens on a connection of its own; begins at once.

    Args:
        news: called when something may have been committed, perhaps nothing but progress.
        probe: called to have a notice of this process's own sent: does it come back?
    """

    def __init__(
        self,
        where: PostgresUrl,
        echo: Echo,
        news: News,
        probe: Callable[[], None],
    ) -> None:
        self._where = where
        self._echo = echo
        self._news = news
        self._probe = probe
        self._stopping = threading.Event()
        self._woken, self._wake = os.pipe()
        self._said = ""
        self._thread = threading.Thread(target=self._work, name="durably-listen", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, wherever it waits."""
        self._stopping.set()
        os.close(self._wake)

    def join(self) -> None:
        self._thread.join(JOIN_SECONDS)

    def _work(self) -> None:
        try:
            self._listen_until_stopped()
        finally:
            os.close(self._woken)

    def _listen_until_stopped(self) -> None:
        while not self._stopping.is_set():
            if not self._where.notify:
                self._poll(float("inf"))
                continue
            try:
                with connect(self._where) as connection:
                    self._listen(connection)
                    deaf = self._hear(connection)
            except (LedgerError, psycopg.Error) as error:
                self._say(logging.INFO, f"no notices for now: {error}")
                self._poll(POLL_SECONDS)
                continue
            if deaf:
                self._say(
                    logging.WARNING,
                    f"{self._where.shown}: notices don't arrive, as behind a pooler in "
                    f"transaction mode; looking every {POLL_SECONDS:g} s instead. Say ?notify=off "
                    "in the URL, or connect to the server itself.",
                )
                self._poll(HEAR_AGAIN_SECONDS)

    def _listen(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._where.channel)))
        self._echo.forget()
        self._probe()
        self._news()  # Something may have been committed meanwhile.

    def _hear(self, connection: psycopg.Connection[Any]) -> bool:
        """Pass notices on until told to stop (False), or until they prove to be lost (True)."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._stopping.is_set():
                heard = [n.payload for n in connection.notifies(timeout=0)]
                others = [payload for payload in heard if not self._echo.heard(payload)]
                if len(others) < len(heard):
                    self._said = ""
                if others:
                    self._news(progress=all(payload.endswith(PROGRESS) for payload in others))
                if self._echo.lost:
                    return True
                selector.select(POLL_SECONDS)
        return False

    def _poll(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping.wait(POLL_SECONDS):
            self._news()
            if time.monotonic() >= until:
                return

    def _say(self, level: int, what: str) -> None:
        """Log it, unless it was the last thing said: what goes on is said once."""
        if what != self._said:
            self._said = what
            log.log(level, "%s", what)
