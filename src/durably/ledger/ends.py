"""Runs whose end somebody else must learn of: a parent, children, the next of a thread.

Owns the list of ends that were not told yet; what is told, and to whom, is `execution.ends`'s.
"""

from __future__ import annotations

from durably.ledger.columns import timestamp
from durably.ledger.operations import Operation, execute, fetch
from durably.ledger.rows import run_from
from durably.records import RunRecord


def list_untold(limit: int = 100) -> Operation[list[RunRecord]]:
    """Runs that ended and whose end was not told, oldest first; a read."""
    return [run_from(row) for row in (yield from fetch("list_untold_ends", limit=limit))]


def told(run: RunRecord) -> Operation[None]:
    """Everybody knows now that the run ended; does nothing if it was revived meanwhile.

    Also if it has ended again since: that is another end, which somebody must be told.
    """
    if run.finished_at is not None:
        yield from execute("told_end", run_id=run.id, finished_at=timestamp(run.finished_at))
