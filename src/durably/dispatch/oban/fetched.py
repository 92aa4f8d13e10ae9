"""The jobs that a node has fetched, as it knows itself, and as Oban's table says.

Owns finding those that are this node's and that it does not know of; what a job does is
`jobs`'.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from durably.errors import LedgerUnavailable
from durably.execution.away import Away
from durably.ledger import jobs
from durably.ledger.database import Database

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.5
"""How often to look for jobs that were fetched here and nobody knows of."""


class FetchedJobs:
    """Lets jobs be fetched again that were fetched and forgotten.

    A connection that is lost while it fetches jobs leaves them as this node's, and nobody hears of
    it. Oban takes them for healthy, for minutes. Nor does it try again by itself to say how one
    ended where that could not be written, as on a full disk: only when another job comes.
    """

    def __init__(self, ledger: Database, worker_id: str) -> None:
        self._ledger = ledger
        self._worker_id = worker_id
        self._in_hand: Counter[int] = Counter()
        self._ended: set[int] = set()
        self._unknown: set[int] = set()
        self._unsaid: set[int] = set()
        self._looked_at = -LOOK_SECONDS
        self._away = Away(log, "looking after jobs")

    @contextmanager
    def in_hand(self, job_id: int) -> Generator[None]:
        """While a job is being worked on; it may come twice."""
        self._in_hand[job_id] += 1
        try:
            yield
        finally:
            self._in_hand[job_id] -= 1
            self._ended.add(job_id)

    async def free_forgotten(self) -> bool:
        """Look, unless it was done a moment ago.

        Returns:
            True if there are jobs of which Oban's table still does not say that they ended.
        """
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = time.monotonic()
        try:
            ended = set(self._ended)  # Before the table is read: the others may not be in it yet.
            fetched = set(await self._ledger.read(jobs.list_fetched, self._worker_id))
            if forgotten := self._forgotten(fetched):
                freed = await self._ledger.write(jobs.free, self._worker_id, sorted(forgotten))
                log.warning("%d jobs were fetched and forgotten; they come again", freed)
            self._away.over()
            lasting, self._unsaid = ended & fetched & self._unsaid, ended & fetched
            return bool(lasting - set(self._in_hand))
        except LedgerUnavailable as error:
            self._away.now(error)
        return False

    def _forgotten(self, fetched: set[int]) -> set[int]:
        self._in_hand += Counter()  # Forgets those that are at zero.
        self._ended &= fetched  # Of the others, Oban has said by now how they ended.
        unknown = fetched - self._ended - set(self._in_hand)
        # Twice in a row: one may have been fetched a moment ago.
        forgotten, self._unknown = unknown & self._unknown, unknown
        return forgotten
