"""The pipeline that belongs to an event loop: to which, and that there is one again after a loss.

Owns when a connection is opened, in a thread, and what it is set to; what is sent over it is
`loop_lane`'s.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.pq.abc import PGresult

from durably.errors import DurablyError
from durably.ledger.postgres.connection import IMPATIENT, connect, settings_of
from durably.ledger.postgres.pipeline import Pipeline
from durably.ledger.postgres.url import PostgresUrl

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""How long after a connection was lost, or could not be opened, another one is tried."""


class LoopPipeline:
    """A pipeline for the first event loop that asks, and for the next once that is closed.

    But for `of`, its methods are called in that loop.

    Args:
        answered: as of `Pipeline`.
        lost: as of `Pipeline`; there is none by then.
        adopted: called when it is another loop's from now on.
        opened: called when it was opened, or could not be.

    Attributes:
        loop: whose it is.
        now: it, while there is one.
    """

    def __init__(
        self,
        where: PostgresUrl,
        answered: Callable[[list[PGresult] | psycopg.Error], None],
        lost: Callable[[psycopg.Error], None],
        *,
        adopted: Callable[[], None],
        opened: Callable[[], None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.now: Pipeline | None = None
        self._where = where
        self._answered = answered
        self._told_lost = lost
        self._adopted = adopted
        self._opened = opened
        self._opening: asyncio.Future[psycopg.Connection[Any] | None] | None = None
        self._not_before = -math.inf
        self._lock = threading.Lock()

    @property
    def opening(self) -> bool:
        """Whether there will be one in a moment."""
        return self._opening is not None

    def of(self, loop: asyncio.AbstractEventLoop) -> Pipeline | None:
        """This running loop's; None if there is none, or not yet: then one is opened."""
        if self.loop is not loop and not self._adopt(loop):
            return None
        if self.now is None and self._opening is None and loop.time() >= self._not_before:
            self._opening = loop.run_in_executor(None, _connect, self._where)
            self._opening.add_done_callback(self._use)
        return self.now

    def close(self) -> None:
        """Let go of the connection."""
        if self.now is not None:
            self.now.close()
            self.now = None

    def give_up(self, error: psycopg.Error) -> None:
        """Take the connection for lost."""
        if self.now is not None:
            self.now.close()
            self._lost(error)

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> bool:
        with self._lock:
            if self.loop is not None and not self.loop.is_closed():
                return False
            self.close()
            self.loop, self._opening, self._not_before = loop, None, -math.inf
            self._adopted()
            return True

    def _use(self, opening: asyncio.Future[psycopg.Connection[Any] | None]) -> None:
        assert self.loop is not None
        self._opening = None
        try:
            self.now = self._over(opening.result())
        except (DurablyError, psycopg.Error) as error:
            # Whoever asks now is told by the threads.
            log.debug("no connection for an event loop: %s", error)
            self._not_before = self.loop.time() + RETRY_SECONDS
        else:
            self._not_before = math.inf if self.now is None else -math.inf
        self._opened()

    def _over(self, connection: psycopg.Connection[Any] | None) -> Pipeline | None:
        """A pipeline over it; None if there never can be one."""
        if connection is None:
            return None
        try:
            return Pipeline(connection, self._where.schema, self._answered, self._lost)
        except NotImplementedError:  # A loop that sees no sockets, as one of Windows's.
            connection.close()
            return None

    def _lost(self, error: psycopg.Error) -> None:
        assert self.loop is not None
        self.now = None
        self._not_before = self.loop.time() + RETRY_SECONDS
        self._told_lost(error)


def _connect(where: PostgresUrl) -> psycopg.Connection[Any] | None:
    """A connection; None where each transaction has to say what it needs."""
    connection = connect(where)
    try:
        if settings_of(connection).usual:
            connection.execute(f"SET {IMPATIENT}")
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None
