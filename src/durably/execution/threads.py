"""What the end of a run means to its thread: what steered it ends too, the next run goes on.

Owns the order of the writes, each about one run; whose turn it is, is the ledger's.
"""

from __future__ import annotations

from durably.ledger import threads
from durably.ledger.database import Database
from durably.records import RunRecord


async def release(ledger: Database, run: RunRecord) -> None:
    """Let the thread of a run that ended go on; does nothing for a run without one."""
    if run.thread is None:
        return
    while await ledger.write(threads.release, run.thread):
        continue
