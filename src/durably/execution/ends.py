"""Telling others that a run ended: whoever waits for it, and whatever must not outlive it.

Owns the order. Each is a write about one run, so that no transaction holds two: a process that dies
between them leaves the rest to any worker's maintenance.
"""

from __future__ import annotations

import contextlib

from durably import boundaries
from durably.errors import RunNotFound, TransitionRefused
from durably.execution import threads
from durably.execution.apart import apart
from durably.ledger import children, ends, runs
from durably.ledger.database import Database
from durably.records import RunRecord


async def tell_end(ledger: Database, run: RunRecord) -> None:
    """Tell everybody who must know that ``run`` ended; does nothing if it has not, or they do.

    Raises:
        LedgerUnavailable: somebody was not told yet; maintenance tells them.
    """
    if not run.tells_end or not run.state.final:
        return
    boundaries.reached("end:before")
    await threads.release(ledger, run)
    boundaries.reached("end:released")
    if run.parent_id is not None:
        await ledger.write(children.tell_parent, run.id)
        boundaries.reached("end:parent_told")
    for child in await ledger.read(children.list_open, run.id):
        with contextlib.suppress(TransitionRefused, RunNotFound):  # It ended meanwhile.
            await tell_end(ledger, await ledger.write(runs.cancel, child.key, children.BY_PARENT))
            boundaries.reached("end:child_told")
    await ledger.write(ends.told, run)
    boundaries.reached("end:after")


async def tell_ends(ledger: Database) -> None:
    """Tell what nobody lived to tell."""
    for run in await ledger.read(ends.list_untold):
        with apart(f"telling the end of run {run.key!r}"):
            await tell_end(ledger, run)
