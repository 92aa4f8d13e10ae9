"""The default dispatcher: claims what is due from the ledger, woken by commits and by time.

Owns the loop of one worker; claiming itself is one statement of the ledger's.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

from durably.dispatch.dispatcher import Slots, Start
from durably.dispatch.queues import QueueSettings
from durably.errors import LedgerUnavailable
from durably.execution.away import Away
from durably.ledger import attempts, reads
from durably.ledger.database import Database

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""How long to sleep when nothing is due and nothing wakes; a net under the notices."""

BEGUN_SECONDS = 0.02
"""How soon after runs have begun to look when the next comes due: they go first."""

RETRY_SECONDS = 0.5
"""Pause after the database refused."""


class EmbeddedDispatcher:
    """Drains queues of the ledger.

    Woken by any commit of any process that is more than progress (`Database.subscribe`), by a slot
    that came free, by a queue that was resumed or scaled, and by the time at which the next
    scheduled or retryable run comes due. It sleeps otherwise.

    Args:
        queues: those that this worker serves.
    """

    def __init__(
        self, ledger: Database, worker_id: str, queues: QueueSettings, slots: Slots
    ) -> None:
        self._ledger = ledger
        self._worker_id = worker_id
        self._queues = queues
        self._slots = slots
        self._wake = asyncio.Event()
        self._more: set[str] = set()

    def slot_freed(self) -> None:
        self._wake.set()

    async def close(self) -> None:
        """Nobody else need know."""

    async def run(self, start: Start) -> None:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._wake.set)

        away = Away(log, "claiming runs")
        with self._ledger.subscribe(wake), self._queues.subscribe(lambda _: self._wake.set()):
            while True:
                self._wake.clear()
                try:
                    seconds = await self._claim_due(start)
                    away.over()
                except LedgerUnavailable as error:
                    away.now(error)
                    seconds = RETRY_SECONDS
                try:
                    await asyncio.wait_for(self._wake.wait(), timeout=seconds)
                except TimeoutError:
                    continue

    async def _claim_due(self, start: Start) -> float:
        """Claim into every free slot; returns how long there will be nothing to do."""
        wait_seconds = POLL_SECONDS
        for queue in self._queues.names:
            free = self._slots.free(queue)
            if free <= 0:
                continue
            # A queue that filled every slot the last time has more, most likely: nobody asks first.
            if queue not in self._more:
                due, now = await self._ledger.read(reads.next_due, queue)
                if due is None:
                    continue
                if due > now:
                    wait_seconds = min(wait_seconds, _seconds_between(now, due))
                    continue
            if await self._claim(queue, free, start) < free:
                # Nothing more is due now: when something will be shows at the next look.
                wait_seconds = min(wait_seconds, BEGUN_SECONDS)
        return wait_seconds

    async def _claim(self, queue: str, limit: int, start: Start) -> int:
        """Claim so many runs at most, and start them; returns how many."""
        knew_of_more = queue in self._more
        self._more.discard(queue)
        claiming = asyncio.ensure_future(
            self._ledger.write(attempts.claim, self._worker_id, queue, limit)
        )
        try:
            claimed = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # A claim that is being committed cannot be called back: its runs are this worker's,
            # and are started so that they are handed back in order.
            for run in await claiming:
                start(run)
            raise
        # Of one at a time, the first says nothing about a second.
        if len(claimed) == limit and (limit > 1 or knew_of_more):
            self._more.add(queue)
        for run in claimed:
            start(run)
        return len(claimed)


def _seconds_between(now: datetime, due: datetime) -> float:
    return max(0.0, (due - now).total_seconds())
