"""The clock of a ledger under test: it goes as the machine's does, or stands; a test moves it.

Owns what time it is; what is moved along with it registers itself.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

from durably.errors import ConfigError


class Clock:
    """What a ledger takes for the time: ``Durably(url, clock=Clock())``.

    Everything that the ledger has times for follows it: when runs are due, retries, timers, time
    limits of questions, leases of workers. Workers of this process that are alive stay so, however
    far it is moved; those that died are found dead once their lease is over on it. What is measured
    while code runs (``timeout=`` of an agent or of a hook) is not moved.

    Args:
        start: stand still at this time until the clock is moved; with a time zone. By default it
            goes as the machine's clock does, and as far ahead of it as it was moved.

    Raises:
        ConfigError: ``start`` has no time zone.
    """

    def __init__(self, start: datetime | None = None) -> None:
        if start is not None and start.tzinfo is None:
            raise ConfigError("Clock(start) needs a time zone: write datetime(…, tzinfo=UTC).")
        self._stands_at = start
        self._ahead = timedelta()
        self._around: list[Callable[[float], AbstractContextManager[None]]] = []
        self._moving = threading.Lock()

    def __call__(self) -> datetime:
        return (self._stands_at or datetime.now(UTC)) + self._ahead

    @property
    def now(self) -> datetime:
        """The time that it shows, with a time zone."""
        return self()

    @property
    def start(self) -> datetime | None:
        """Where it stood at first; None if it goes."""
        return self._stands_at

    @property
    def ahead(self) -> timedelta:
        """How far it was moved altogether."""
        return self._ahead

    def advance(self, by: float | timedelta) -> None:
        """Move it; what is due then, the next `drain` finds, and workers at once.

        Not inside of a transaction of a TRANSACTIONAL tool on SQLite: workers' leases are written.

        Args:
            by: seconds, or a timedelta; less than 0 sets it back.

        Raises:
            ConfigError: that is no time.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        if not math.isfinite(seconds):
            raise ConfigError(f"advance({by!r}): a number of seconds, or a timedelta.")
        with self._moving, ExitStack() as others:
            for around in list(self._around):
                others.enter_context(around(seconds))
            self._ahead += timedelta(seconds=seconds)

    @contextmanager
    def around_moves(
        self, around: Callable[[float], AbstractContextManager[None]]
    ) -> Generator[None]:
        """Within the block, move only inside of ``around(seconds)``; for workers and ledgers."""
        self._around.append(around)
        try:
            yield
        finally:
            self._around.remove(around)

    def __repr__(self) -> str:
        return f"<Clock at {self.now.isoformat()}>"
