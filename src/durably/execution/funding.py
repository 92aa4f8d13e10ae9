"""Runs that wait for a budget: woken once it has room, one write for each.

Owns how many are looked at; whether a budget has room is the ledger's to say.
"""

from __future__ import annotations

from collections.abc import Sequence

from durably.execution.apart import apart
from durably.ledger import budgets
from durably.ledger.database import Database


async def wake_waiting_for(ledger: Database, scope: str, name: str) -> None:
    """Wake runs that wait for this shared budget, after it was set or removed.

    The first of them at once; maintenance finds the others, and what a process that died left.
    """
    await _wake(ledger, await ledger.read(budgets.list_waits_for, scope, name))


async def wake_funded(ledger: Database, after: int = 0) -> int:
    """Wake the runs of one page that wait for a budget which has room by now.

    Args:
        after: where the page begins, as the last call returned it.
    """
    found, following = await ledger.read(budgets.list_waits, after)
    await _wake(ledger, found)
    return following


async def _wake(ledger: Database, run_ids: Sequence[int]) -> None:
    for run_id in run_ids:
        with apart(f"waking run #{run_id}, which waits for a budget,"):
            await ledger.write(budgets.wake_funded, run_id)
