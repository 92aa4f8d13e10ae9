"""Telling other processes that this one has committed something.

Owns the thread that sends notices, and the knowledge whether they come back to where they began.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any

import psycopg
from psycopg import sql

from durably.errors import LedgerError
from durably.ledger.postgres.connection import connect
from durably.ledger.postgres.url import PostgresUrl

log = logging.getLogger(__name__)

GAP_SECONDS = 0.02
"""Commits within this time share one notice: NOTIFY takes a lock that all sessions share."""

PROGRESS_GAP_SECONDS = 0.05
"""The same, after a notice of nothing but progress; more than progress does not wait for it."""

RETRY_SECONDS = 0.5
"""How long until a notice that could not be sent is sent again."""

ECHO_SECONDS = 5.0
"""How long this process's own notice may take to come back before notices count as lost."""

JOIN_SECONDS = 5.0
"""How long closing waits for a thread that may be connecting to a server that is away."""

PROGRESS = " progress"
"""How a notice ends that tells of nothing but progress (`operations.progress`)."""

# Nobody needs a notice that survives a power cut: it does not wait for the disk.
_NOTIFY = (
    "BEGIN; SET LOCAL synchronous_commit = off; "
    "SELECT pg_catalog.pg_notify({channel}, {payload}); COMMIT"
)


class Echo:
    """Whether a process hears its own notices: if not, it does not hear others' either."""

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex[:12]
        self._lock = threading.Lock()
        self._sent = self._heard = 0
        self._missing_since: float | None = None

    def next(self, *, progress: bool) -> tuple[int, str]:
        """The next notice's number, and what it says."""
        number = self._sent + 1
        return number, f"{self._name} {number}{PROGRESS if progress else ''}"

    def sent(self, number: int) -> None:
        """It is on its way; perhaps it has come back already."""
        with self._lock:
            self._sent = number
            if self._heard < number and self._missing_since is None:
                self._missing_since = time.monotonic()

    def heard(self, payload: str) -> bool:
        """Note a notice that came; True if it is one of this process's own."""
        name, _, rest = payload.partition(" ")
        if name != self._name:
            return False
        with self._lock:
            self._heard = int(rest.removesuffix(PROGRESS))
            if self._heard >= self._sent:
                self._missing_since = None
        return True

    def forget(self) -> None:
        """What was sent before this process listened cannot come back."""
        with self._lock:
            self._missing_since = None

    @property
    def lost(self) -> bool:
        """Whether a notice did not come back in time."""
        since = self._missing_since
        return since is not None and time.monotonic() - since > ECHO_SECONDS


class Teller:
    """A thread that sends a notice soon after it is told to; begins at once."""

    def __init__(self, where: PostgresUrl, echo: Echo) -> None:
        self._where = where
        self._echo = echo
        self._condition = threading.Condition()
        self._progress = False
        self._news = False
        self._pausing = False
        self._stopping = False
        self._connection: psycopg.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._work, name="durably-tell", daemon=True)
        self._thread.start()

    def tell(self, *, progress: bool = False) -> None:
        """Have a notice sent, perhaps of nothing but progress."""
        with self._condition:
            # Waking the thread at each commit would cost more than what it does.
            awake = progress and (self._progress or self._pausing)
            if progress:
                self._progress = True
            else:
                self._news = True
            if not awake:
                self._condition.notify()

    def stop(self) -> None:
        """End the thread once nothing is left to tell."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def join(self) -> None:
        self._thread.join(JOIN_SECONDS)

    def _work(self) -> None:
        while (progress := self._wait_for_news()) is not None:
            pause = PROGRESS_GAP_SECONDS if progress else GAP_SECONDS
            try:
                self._send(progress=progress)
            except (LedgerError, psycopg.Error) as error:
                # Others look from time to time anyway.
                log.debug("a notice was not sent: %s", error)
                self._disconnect()
                self._news = not self._stopping
                progress, pause = False, RETRY_SECONDS
            self._pause(pause, unless_news=progress)
        self._disconnect()

    def _pause(self, seconds: float, *, unless_news: bool) -> None:
        with self._condition:
            self._pausing = True
            self._condition.wait_for(
                lambda: self._stopping or (unless_news and self._news), seconds
            )
            self._pausing = False

    def _wait_for_news(self) -> bool | None:
        """Whether it is nothing but progress; None once there is nothing left to tell."""
        with self._condition:
            self._condition.wait_for(lambda: self._news or self._progress or self._stopping)
            news, progress = self._news, self._progress
            self._news = self._progress = False
            return not news if news or progress else None

    def _send(self, *, progress: bool) -> None:
        self._connection = self._connection or connect(self._where)
        number, payload = self._echo.next(progress=progress)
        notify = sql.SQL(_NOTIFY).format(
            channel=sql.Literal(self._where.channel), payload=sql.Literal(payload)
        )
        self._connection.execute(notify)
        self._echo.sent(number)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
