"""The Oban instance of one worker: how it starts, does as the queues are set, and stops.

Owns nothing of what a job does: that is `jobs`'.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from oban import Oban
from psycopg_pool import AsyncConnectionPool

from durably.dispatch.dispatcher import Slots, Start
from durably.dispatch.oban.jobs import AGAIN_SECONDS, Jobs, serving
from durably.dispatch.queues import QueueSettings
from durably.dispatch.requests import Intake
from durably.errors import ConfigError
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.postgres.pool import AWAY, POOL_SECONDS, new_pool

log = logging.getLogger(__name__)

OWN = ("pool", "queues", "name", "node", "prefix", "dispatcher", "shutdown_grace_period")
"""Oban's options that durably sets itself."""

POOL_SIZE = 4
"""Connections of Oban's at most; it needs one for a moment at each fetch and acknowledgement."""

STOP_SECONDS = 5.0
"""How long Oban may take to say good-bye to a database that may be away."""

SHOW_SECONDS = 1.0
"""How long telling others may take that a node has paused."""

LOOK_SECONDS = 0.25
"""How often to look whether somebody cancelled a job that is executing here."""


class ObanDispatcher:
    """Executes the runs whose jobs Oban fetches on this node.

    Args:
        worker_id: also Oban's name for this node.
        queues: those that this worker serves.
        slots: whether it may claim anything; how much is Oban's to count.
        intake: makes runs of what jobs of other languages ask for.
        options: for `oban.Oban`, apart from those that durably sets itself.

    Raises:
        ConfigError: an option is durably's to set.
    """

    def __init__(
        self,
        ledger: PostgresDatabase,
        worker_id: str,
        queues: QueueSettings,
        slots: Slots,
        intake: Intake,
        options: Mapping[str, Any],
    ) -> None:
        if taken := sorted(set(options) & set(OWN)):
            raise ConfigError(f"oban option {taken[0]!r} is set by durably itself; leave it out.")
        self._ledger = ledger
        self._worker_id = worker_id
        self._queues = queues
        self._options = dict(options)
        self._pool: AsyncConnectionPool[Any] | None = None
        self._oban: Oban | None = None
        self._jobs = Jobs(ledger, worker_id, slots, intake)

    def slot_freed(self) -> None:
        """Oban counts for itself: a job that ends makes room."""

    async def run(self, start: Start) -> None:
        self._jobs.start = start
        await self._begin()
        changed, news = set(self._queues.names), asyncio.Event()

        def note(queue: str) -> None:
            changed.add(queue)
            news.set()

        with self._queues.subscribe(note):
            try:
                while True:
                    news.clear()
                    await self._apply(changed)
                    await self._jobs.pass_on_cancels()
                    if await self._jobs.fetched.free_forgotten():
                        await self._say_again()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), timeout=LOOK_SECONDS)
            finally:
                self._jobs.leaving = True
                await self._pause()

    async def close(self) -> None:
        oban, pool = self._oban, self._pool
        self._oban = self._pool = None
        if oban is not None:
            # Oban stops nothing unless all of it was started; what was must not go on fetching.
            oban._signal_token = oban._signal_token or "none"  # pyright: ignore
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await oban.stop()
            except Exception as error:
                # Its jobs stay `executing`; their runs are settled, so that rescuing them is idle.
                log.warning("Oban could not be stopped in order: %s", str(error) or repr(error))
        if pool is not None:
            await pool.close(timeout=POOL_SECONDS)

    async def _begin(self) -> None:
        """Start Oban, as soon as the database lets it."""
        while True:
            self._pool = new_pool(self._ledger.where, "durably-oban", POOL_SIZE)
            await self._pool.open()
            self._oban = self._new_oban(self._pool)
            # The tasks that it starts from here on find these jobs by their context.
            token = serving.set(self._jobs)
            try:
                await self._oban.start()
                return
            except AWAY as error:
                log.warning("Oban cannot be started yet: %s", error)
            finally:
                serving.reset(token)
            await asyncio.sleep(AGAIN_SECONDS)
            await self.close()

    def _new_oban(self, pool: AsyncConnectionPool[Any]) -> Oban:
        return Oban(
            pool=pool,
            node=self._worker_id,
            prefix=self._ledger.where.schema,
            queues={
                name: {"limit": self._queues.limit(name), "paused": self._queues.paused(name)}
                for name in self._queues.names
            },
            shutdown_grace_period=None,
            **self._options,
        )

    async def _apply(self, changed: set[str]) -> None:
        """Have Oban's producers on this node do as the queues are set."""
        assert self._oban is not None, "begun"
        for queue in list(changed):
            limit, paused = self._queues.limit(queue), self._queues.paused(queue)
            try:
                info = self._oban.check_queue(queue)
                if info is not None and info.limit != limit:
                    await self._oban.scale_queue(queue=queue, node=self._worker_id, limit=limit)
                if info is not None and info.paused != paused:
                    turn = self._oban.pause_queue if paused else self._oban.resume_queue
                    await turn(queue, node=self._worker_id)
            except Exception as error:
                log.warning("queue %s could not be set in Oban now: %s", queue, error)
                return
            changed.discard(queue)

    async def _say_again(self) -> None:
        """Have Oban's producers say once more how jobs ended: they do so whenever they are set."""
        assert self._oban is not None, "begun"
        for queue in self._queues.names:
            limit = self._queues.limit(queue)
            try:
                await self._oban.scale_queue(queue=queue, node=self._worker_id, limit=limit)
            except Exception as error:
                log.warning("queue %s cannot say now how its jobs ended: %s", queue, error)

    async def _pause(self) -> None:
        assert self._oban is not None, "begun"
        pauses = [self._oban.pause_queue(q, node=self._worker_id) for q in self._queues.names]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHOW_SECONDS):
                # They fetch nothing more from here on; what they say to the database is for show.
                await asyncio.gather(*pauses, return_exceptions=True)
