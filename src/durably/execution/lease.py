"""A worker's lease: one heartbeat for everything that the worker executes, off the event loop.

Owns the heartbeat thread and what it knows of time; ending attempts is the listener's part.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager

from durably import boundaries
from durably.errors import DurablyError, LedgerMoved, LedgerUnavailable
from durably.execution.away import Away
from durably.ledger import workers
from durably.ledger.database import Database, MovableClock

log = logging.getLogger(__name__)

BEATS_PER_LEASE = 3
"""A lease survives two missed heartbeats."""

AGAIN_SECONDS = 1.0
"""At most how long until a heartbeat that could not be written is tried again."""

STEADY_SECONDS = 5.0
"""How long heartbeats have to get through again before others that don't count as dead."""

_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _now() -> float:
    """Seconds that never run back, and go on while the machine sleeps, as the ledger's do."""
    return time.clock_gettime(_CLOCK)


class WorkerLease:
    """Extends a worker's lease from a thread, so that a tool blocking the loop cannot stop it.

    Args:
        worker_id: unique to this process and start.
        lease_seconds: how long the worker counts as alive after a heartbeat.
        on_beat: called in the heartbeat thread after each heartbeat, or failure of one.

    Attributes:
        moved: why no heartbeat will ever be written again; None as long as one may be.
    """

    def __init__(
        self,
        ledger: Database,
        *,
        worker_id: str,
        name: str,
        pid: int,
        queues: dict[str, int],
        lease_seconds: float,
        on_beat: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._row = (worker_id, name, pid, queues, lease_seconds)
        self._lease_seconds = lease_seconds
        self._on_beat = on_beat
        self.moved: LedgerMoved | None = None
        self._valid_until = 0.0
        self._lapses = 0
        self._steady_since = -math.inf
        self._away = Away(log, "heartbeats")
        self._beating = threading.Lock()
        self._followed = ExitStack()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="durably-heartbeat", daemon=True)

    def valid(self) -> bool:
        """True while no other worker can have taken over.

        Counted from before the last heartbeat was sent: a process that was frozen past its lease
        sees False before it does anything else.
        """
        return _now() < self._valid_until

    def hold(self) -> Callable[[], bool]:
        """For an attempt that begins now: whether the lease has held ever since.

        Once False it stays so. The heartbeat of a process that was frozen may be written before
        its attempts go on: the worker is alive again then, but its runs are others'.
        """
        lapses = self._lapses
        return lambda: self.valid() and self._lapses == lapses

    @property
    def steady(self) -> bool:
        """False if even this worker's own heartbeat could not be written for a while, or lately.

        Others that seem dead then may only have had no time yet to say that they are not.
        """
        return not self._is_late() and _now() - self._steady_since > STEADY_SECONDS

    def _is_late(self) -> bool:
        since = self._lease_seconds - (self._valid_until - _now())
        return since > 2 * self._lease_seconds / BEATS_PER_LEASE

    async def start(self, *, steady: bool = True) -> None:
        """Register the worker and begin to beat; ``steady`` unless the database was just away."""
        sent = _now()
        await self._ledger.write(workers.register, *self._row)
        self._valid_until = sent + self._lease_seconds
        self._steady_since = -math.inf if steady else _now()
        if isinstance(clock := self._ledger.clock, MovableClock):
            self._followed.enter_context(clock.around_moves(self._move))
        self._thread.start()

    async def stop(self) -> None:
        """Stop beating and forget the worker; its runs must be settled before."""
        self._followed.close()
        self._stop.set()
        self._thread.join(timeout=self._lease_seconds)
        try:
            await self._ledger.write(workers.remove, self._row[0])
        except LedgerUnavailable as error:
            # It holds nothing any more: it is merely listed for as long as its lease lasts.
            log.warning("worker %s is not taken off the list: %s", self._row[0], error)

    def _loop(self) -> None:
        usual = seconds = self._lease_seconds / BEATS_PER_LEASE
        while not self._stop.wait(seconds):
            sent, seconds = _now(), usual
            try:
                with self._beating:
                    self._ledger.write_blocking(workers.register, *self._row)
            except boundaries.Died:
                return
            except LedgerMoved as error:
                self.moved = error
            except DurablyError as error:
                # `valid` ends the attempts if none gets through in time.
                self._away.now(error)
                seconds = min(usual, AGAIN_SECONDS)
                self._steady_since = math.inf
            else:
                self._written(sent)
            self._on_beat()

    @contextmanager
    def _move(self, seconds: float) -> Generator[None]:
        """Keep the lease while a test's clock moves: this worker would have gone on beating."""
        with self._beating:
            try:
                row = (*self._row[:-1], self._lease_seconds + seconds)
                self._ledger.write_blocking(workers.register, *row)
            except DurablyError as error:
                log.warning("the lease is not moved along with the clock: %s", error)
            yield

    def _written(self, sent: float) -> None:
        self._away.over()
        if self._is_late() or self._steady_since == math.inf:
            self._steady_since = _now()
        if not self.valid():
            self._lapses += 1  # Before it is valid again: no attempt may see it between.
        self._valid_until = sent + self._lease_seconds
