"""Cancelling the run that is going for a message that interrupts it.

Owns the two writes, each about one run: a process that dies between them, or before the first,
leaves the rest to any worker's maintenance.
"""

from __future__ import annotations

import contextlib

from durably.errors import RunNotFound, TransitionRefused
from durably.execution.apart import apart
from durably.execution.ends import tell_end
from durably.ledger import reads, runs, threads
from durably.ledger.database import Database
from durably.records import RunRecord

BY_INTERRUPT = "interrupt"
"""Who is said to have cancelled a run that a new message interrupted."""


async def interrupt_for(ledger: Database, run: RunRecord) -> None:
    """Cancel the run that ``run`` was enqueued to interrupt; does nothing for any other.

    Raises:
        LedgerUnavailable: it is not cancelled yet; maintenance does it.
    """
    waiting = run.waiting_on or {}
    if waiting.get("kind") != "interrupt":
        return
    with contextlib.suppress(RunNotFound, TransitionRefused):  # It ended meanwhile.
        # Where it cannot be read which, the run just waits for its turn.
        going = await ledger.read(reads.get_run, waiting.get("interrupts", ""))
        if not going.state.final and going.cancel_requested_at is None:
            await tell_end(ledger, await ledger.write(runs.cancel, going.key, BY_INTERRUPT))
    await ledger.write(threads.interrupted, run.id)


async def interrupt_all(ledger: Database) -> None:
    """Do it for those whose process did not live to, or that joined somebody's own transaction."""
    for run in await ledger.read(threads.list_interrupts):
        with apart(f"interrupting for run {run.key!r}"):
            await interrupt_for(ledger, run)
