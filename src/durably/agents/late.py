"""Tools that are still running when their attempt ends: what they say is not thrown away.

Owns late evidence; a tool that ends while its attempt goes on is `once`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from pydantic_ai import ApprovalRequired, CallDeferred

from durably.agents import recorded
from durably.agents.guarded import Guarded
from durably.errors import LeaseLost, LedgerError, NotDone, ResultNotSerializable
from durably.execution.control import Ending
from durably.ledger.written import CallOutcome
from durably.retry import nothing_was_sent
from durably.wording import worded

log = logging.getLogger(__name__)

NOT_STARTED = "stopped before it started"

UNWIND_SECONDS = 1.0
"""How long a cancelled tool is waited for before its attempt ends without its word."""

_late: set[asyncio.Task[None]] = set()
"""What goes on after its attempt ended; kept here so that it is not forgotten."""


def go_on(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Do the work whatever becomes of the attempt: its own tasks may be cancelled once more."""
    task = asyncio.create_task(work)
    _late.add(task)
    task.add_done_callback(_late.discard)
    return task


async def finish_even_if_lost(guarded: Guarded) -> Any:
    """Run a once tool; if the attempt is lost meanwhile, let it finish and report."""
    task = asyncio.create_task(guarded.run())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        control = guarded.journal.control
        if control.ending is None and not task.done():
            # Another call of this batch failed. That is no reason to lose what this one does,
            # and a thread could not be stopped anyway. A second cancellation has a reason.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if control.ending is Ending.LOST:
            go_on(_keep_what_ended(guarded, task))
        else:
            task.cancel()
            await asyncio.shield(go_on(_keep_what_ended(guarded, task, UNWIND_SECONDS)))
        raise


async def _keep_what_ended(
    guarded: Guarded, task: asyncio.Task[Any], seconds: float | None = None
) -> None:
    """Wait for a tool whose attempt was stopped: if it ends, it has an outcome after all."""
    await asyncio.wait({task}, timeout=seconds)
    await _say_how_it_ended(guarded, task)


async def _say_how_it_ended(guarded: Guarded, task: asyncio.Task[Any]) -> None:
    call = guarded.call
    if task.done() and not guarded.started:
        await withdraw_quietly(guarded, NOT_STARTED)
        return
    error = _error_of(task)
    if error is not None and (
        isinstance(error, NotDone | ApprovalRequired | CallDeferred) or nothing_was_sent(error)
    ):
        await withdraw_quietly(guarded, worded(error))
        return
    outcome = _outcome_of(guarded, task)
    if outcome is None:
        return
    try:
        await guarded.journal.effects.finish(outcome)
    except LeaseLost:
        await report_late(guarded, outcome)
    except LedgerError as error:
        log.warning("the result of %s was not kept: %s", call.tool_name, error)


async def report_late(guarded: Guarded, outcome: CallOutcome) -> None:
    """Tell a run that is not this attempt's any more how the call ended."""
    try:
        settled = await guarded.journal.effects.settle_late(outcome)
    except LedgerError as error:
        log.warning("late evidence of %s was not written: %s", outcome.call.tool_name, error)
        return
    how = "settled" if settled else "found already settled"
    log.warning(
        "late evidence: %s of run %r %s", outcome.call.tool_name, guarded.journal.run.key, how
    )


async def withdraw_quietly(guarded: Guarded, why: str) -> None:
    """Forget the intent of a call that did not happen, even if this is cancelled."""
    await asyncio.shield(go_on(_withdraw(guarded, why)))


async def _withdraw(guarded: Guarded, why: str) -> None:
    if guarded.doubted:
        # This try did not happen; an earlier one may have. Its intent is in doubt when this ends.
        return
    try:
        await guarded.journal.effects.withdraw(guarded.call, why)
    except (LeaseLost, LedgerError) as error:
        # It stays recorded as started: in doubt is the careful side to err on.
        log.warning("an intent of %s was not withdrawn: %s", guarded.call.tool_name, error)


def _error_of(task: asyncio.Task[Any]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _outcome_of(guarded: Guarded, task: asyncio.Task[Any]) -> CallOutcome | None:
    """What a tool that ended on its own says; None where in doubt is still the truth."""
    if not task.done() or task.cancelled():
        return None
    error = task.exception()
    if error is not None:
        envelope = recorded.answer_envelope(error)
        return None if envelope is None else guarded.failed(envelope)
    try:
        return guarded.done(recorded.returned(guarded.call.tool_name, task.result()))
    except ResultNotSerializable as unusable:
        log.warning("the result of %s was not kept: %s", guarded.call.tool_name, unusable)
        return None
