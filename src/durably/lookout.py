"""One look at the ledger for all of a process's handles that wait for a run to end.

Owns when to look and who is told; what a waiter makes of it is its own business.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from durably.errors import LedgerUnavailable
from durably.ledger import reads
from durably.ledger.database import Database
from durably.ledger.reads import Standing
from durably.lifecycle import RunState

NET_SECONDS = 2.0
"""How often to look although nothing was committed, and how long to wait for a database that is
away; a net under the notices."""

LOOK_SECONDS = 0.01
"""The least time from one look to the next: what is committed meanwhile is looked at together."""

SHARE = 4
"""How many times as long as a look took there is none after it: many waiters are no busy loop."""


@dataclass(eq=False, slots=True)
class _Waiter:
    """Who waits.

    Attributes:
        known: where the run stood when they last heard of it, if that is no news.
        suspended: whether they want to know that it is suspended.
    """

    known: Standing | None
    suspended: bool
    told: asyncio.Future[None]


class Lookout:
    """Looks after every commit, at most every 10 ms, at the runs that somebody waits for.

    Ten thousand handles that each looked for themselves would look as often at each commit.
    """

    def __init__(self, ledger: Database) -> None:
        self._ledger = ledger
        self._waiters: dict[int, set[_Waiter]] = defaultdict(set)
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    @staticmethod
    def over(ledger: Database) -> Lookout:
        """The one of this ledger in the running event loop."""
        loop = asyncio.get_running_loop()
        by_loop = _lookouts.setdefault(ledger, WeakKeyDictionary())
        return by_loop.setdefault(loop, Lookout(ledger))

    async def stopped(self, run_id: int, *, suspended: bool, known: Standing | None = None) -> None:
        """Wait until a run is over, or gone, or, if that is asked, suspended.

        Args:
            known: where it stands as the caller knows it: that it still does is no news.

        Raises:
            LedgerError: the ledger cannot be read any more.
        """
        waiter = _Waiter(known, suspended, asyncio.get_running_loop().create_future())
        self._waiters[run_id].add(waiter)
        self._changed.set()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_on(), name="durably:lookout")
        try:
            await waiter.told
        finally:
            waiters = self._waiters[run_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[run_id]

    async def _look_on(self) -> None:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._changed.set)

        try:
            with self._ledger.subscribe(wake):
                while self._waiters:
                    await self._look_once()
        except Exception as error:
            for waiters in self._waiters.values():
                for waiter in waiters:
                    if not waiter.told.done():
                        waiter.told.set_exception(error)

    async def _look_once(self) -> None:
        self._changed.clear()
        began = time.monotonic()
        try:
            self._tell(await self._ledger.read(reads.list_stopped, list(self._waiters)))
        except LedgerUnavailable:
            # Whoever waits for a run waits for the database as well.
            await asyncio.sleep(NET_SECONDS)
            return
        took = time.monotonic() - began
        try:
            await asyncio.wait_for(self._changed.wait(), timeout=NET_SECONDS)
        except TimeoutError:
            return
        pause = max(LOOK_SECONDS, SHARE * took) - (time.monotonic() - began)
        await asyncio.sleep(max(0.0, pause))

    def _tell(self, found: Mapping[int, Standing | None]) -> None:
        for run_id, standing in found.items():
            for waiter in self._waiters.get(run_id, ()):
                if standing is not None and standing.state is RunState.SUSPENDED:
                    news = waiter.suspended and standing != waiter.known
                else:
                    news = True
                if news and not waiter.told.done():
                    waiter.told.set_result(None)


_lookouts: WeakKeyDictionary[Database, WeakKeyDictionary[asyncio.AbstractEventLoop, Lookout]] = (
    WeakKeyDictionary()
)
