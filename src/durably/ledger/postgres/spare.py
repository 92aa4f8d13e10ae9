"""Sessions that transactional tools have had, kept for the next ones: to begin one costs the server
more than what most tools do in it.

Owns how many are kept, for how long, and that nothing of one tool is there for the next; what a
tool gets is `lent`'s.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import psycopg
from psycopg import errors
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGconn

from durably.ledger.postgres.lent import Lent

KEPT = 16
"""How many are kept at most: the server has a number that all processes share."""

IDLE_SECONDS = 10.0
"""How long one is kept that no tool needs, at least, and twice as long at most."""


class _Spare(NamedTuple):
    session: PGconn
    since: float


class SpareSessions:
    """Sessions in which nothing is left of whoever had them; used in any thread.

    Each is emptied with DISCARD ALL (PostgreSQL docs) as it comes, which nobody waits for: locks,
    settings, temporary tables and the like of a tool end with it, as if it had been closed.

    Args:
        kept: how many, at most.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._spares: list[_Spare] = []
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def take(self) -> PGconn | None:
        """The one that came last, if it is empty by now and the server is still there."""
        with self._lock:
            for spare in reversed(self._spares):
                empty = _is_empty(spare.session)
                if empty is not False:
                    self._spares.remove(spare)
                if empty:
                    return spare.session
                if empty is None:
                    spare.session.finish()
        return None

    def give(self, connection: Lent) -> None:
        """Keep a connection's session, whose transaction has been committed, or end it."""
        with self._lock:
            room = len(self._spares) < self._kept
            session = connection.release() if room else None
            if session is not None:
                if _begin_to_empty(session):
                    self._spares.append(_Spare(session, time.monotonic()))
                    self._look_later()
                else:
                    session.finish()
                return
        connection.end()

    def clear(self) -> None:
        """End all, as when the server may be another one by now."""
        with self._lock:
            self._end_those_before(time.monotonic())

    def close(self) -> None:
        """End all, and keep none any more."""
        with self._lock:
            self._kept = 0
            self._end_those_before(time.monotonic())
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(IDLE_SECONDS, self._look)
            self._timer.name, self._timer.daemon = "durably-spare", True
            self._timer.start()

    def _look(self) -> None:
        with self._lock:
            self._end_those_before(time.monotonic() - IDLE_SECONDS)
            self._timer = None
            if self._spares:
                self._look_later()

    def _end_those_before(self, then: float) -> None:
        for spare in self._spares:
            if spare.since <= then:
                spare.session.finish()
        self._spares = [spare for spare in self._spares if spare.since > then]


def _begin_to_empty(session: PGconn) -> bool:
    """Have the server forget whoever had it; False if that cannot even be asked for."""
    if (
        session.status != ConnStatus.OK
        or session.transaction_status != TransactionStatus.IDLE
        or session.pipeline_status != PipelineStatus.OFF
    ):
        return False
    try:
        session.send_query(b"DISCARD ALL")
        return session.flush() == 0
    except psycopg.Error:
        return False


def _is_empty(session: PGconn) -> bool | None:
    """Whether the server has forgotten whoever had it, by now; None if it cannot be used."""
    try:
        session.consume_input()  # What it has said,
        session.consume_input()  # and that nothing comes after it.
        while not session.is_busy():
            result = session.get_result()
            if result is None:
                return True
            if result.status != ExecStatus.COMMAND_OK:
                raise errors.error_from_result(result)
    except psycopg.Error:
        return None
    return False
