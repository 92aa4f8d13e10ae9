"""Claims for jobs that were fetched together, made together.

Owns what is asked in one statement and what by itself; what a claim means is the ledger's.
"""

from __future__ import annotations

import asyncio

from durably.ledger import jobs
from durably.ledger.database import Database
from durably.ledger.jobs import Refusal, Wakeup
from durably.records import RunRecord

type _Asked = tuple[Wakeup, asyncio.Future[RunRecord | None]]


class Claims:
    """Claims runs for a worker's jobs: what is asked while a claim is under way is the next one.

    Args:
        worker_id: whose the runs are.
    """

    def __init__(self, ledger: Database, worker_id: str) -> None:
        self._ledger = ledger
        self._worker_id = worker_id
        self._asked: list[_Asked] = []
        self._claiming: asyncio.Task[None] | None = None

    async def claim(self, wakeup: Wakeup) -> RunRecord | Refusal:
        """Take the run for the job, if it is due and nobody else's (see `jobs.claim`)."""
        if not (wakeup.repeated or wakeup.asks):
            claimed = await self._together(wakeup)
            if claimed is not None:
                return claimed
        return await self._ledger.write(jobs.claim, self._worker_id, wakeup)

    async def _together(self, wakeup: Wakeup) -> RunRecord | None:
        future: asyncio.Future[RunRecord | None] = asyncio.get_running_loop().create_future()
        self._asked.append((wakeup, future))
        if self._claiming is None or self._claiming.done():
            self._claiming = asyncio.create_task(self._claim_asked(), name="durably:claims")
        return await future

    async def _claim_asked(self) -> None:
        await asyncio.sleep(0)  # Jobs that were fetched together ask one after the other.
        while self._asked:
            asked, self._asked = self._asked, []
            wakeups = [wakeup for wakeup, _ in asked]
            try:
                claimed = await self._ledger.write(jobs.claim_many, self._worker_id, wakeups)
            except Exception as error:
                _fail(asked, error)
                continue
            for wakeup, future in asked:
                if not future.done():
                    future.set_result(claimed.get(wakeup.job_id))


def _fail(asked: list[_Asked], error: Exception) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(error)
