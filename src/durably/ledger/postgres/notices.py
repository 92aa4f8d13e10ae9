"""Notices that something was committed, told to other processes over LISTEN and NOTIFY.

Owns who is told and when; hearing others is `durably.ledger.postgres.hearing`'s, telling them
`durably.ledger.postgres.telling`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from durably.ledger.database import Listener
from durably.ledger.listeners import Listeners
from durably.ledger.postgres.hearing import Ear
from durably.ledger.postgres.telling import Echo, Teller
from durably.ledger.postgres.url import PostgresUrl


class Notices:
    """Calls listeners soon after any process has committed something.

    This process's own commits are told at once. Other processes' come as notices on one channel of
    the schema. A notice carries no data: who is told looks for itself, so a lost one costs time
    only. Where none can be heard (``notify=off``; a pooler that hands each transaction to another
    session; the server restarting), listeners are told to look every half second.
    """

    def __init__(self, where: PostgresUrl) -> None:
        self._where = where
        self._listeners = Listeners()
        self._lock = threading.Lock()
        self._open = False
        self._echo = Echo()
        self._ear: Ear | None = None
        self._teller: Teller | None = None

    @contextmanager
    def subscribe(self, listener: Listener, *, progress: bool) -> Generator[None]:
        """Listen until the block ends; a thread hears others only while somebody listens."""
        with self._lock:
            self._listeners.add(listener, progress=progress)
            self._begin_to_hear()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener, progress=progress)
                ear = None if self._listeners else self._take_ear()
            if ear is not None:
                ear.stop()

    def start(self) -> None:
        """Tell and listen from now on."""
        with self._lock:
            self._open = True
            if self._listeners:
                self._begin_to_hear()

    def stop(self) -> None:
        """Tell what is still to be told, and end both threads."""
        with self._lock:
            self._open = False
            ear, teller, self._teller = self._take_ear(), self._teller, None
        for thread in (teller, ear):
            if thread is not None:
                thread.stop()
        for thread in (teller, ear):
            if thread is not None:
                thread.join()

    def changed(self, *, progress: bool = False) -> None:
        """Something was committed here, perhaps nothing but progress; called in any thread."""
        self._listeners.tell(progress=progress)
        self._tell_others(progress=progress)

    def _tell_others(self, *, progress: bool = False) -> None:
        if not self._where.notify:
            return
        with self._lock:
            if self._teller is None and self._open:
                self._teller = Teller(self._where, self._echo)
            teller = self._teller
        if teller is not None:
            teller.tell(progress=progress)

    def _begin_to_hear(self) -> None:
        if self._open and self._ear is None:
            self._ear = Ear(self._where, self._echo, self._listeners.tell, self._tell_others)

    def _take_ear(self) -> Ear | None:
        ear, self._ear = self._ear, None
        return ear
