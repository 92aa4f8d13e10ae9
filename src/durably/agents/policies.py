"""The policies of tools that are safe to run again: READ, IDEMPOTENT and TRANSACTIONAL.

Owns when their results become durable; tools that are not safe to repeat are `once`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from durably.agents import recorded
from durably.agents.guarded import Guarded
from durably.agents.late import go_on
from durably.effects import EffectKind

log = logging.getLogger(__name__)


async def repeatable(guarded: Guarded) -> Any:
    """READ and IDEMPOTENT: nothing before; the result with the next write."""
    soon = guarded.policy.kind is EffectKind.IDEMPOTENT
    try:
        result = await guarded.run()
    except Exception as error:
        envelope = recorded.answer_envelope(error)
        if envelope is not None:
            guarded.journal.keep(guarded.failed(envelope), soon=soon)
        raise
    envelope = recorded.returned(guarded.call.tool_name, result)
    guarded.journal.keep(guarded.done(envelope), soon=soon)
    return result


async def transactional(guarded: Guarded) -> Any:
    """Writes and result commit together; found without an outcome, nothing has happened."""
    journal = guarded.journal
    transaction = journal.ledger.transaction()
    try:
        result = await _stoppable(guarded.run(guarded.describe(transaction)))
        outcome = guarded.done(recorded.returned(guarded.call.tool_name, result))
        if not transaction.begun:
            await journal.finish(outcome)
            return result
        journal.control.check_before_acting()
        await _to_its_end(journal.commit(transaction, outcome))
        return result
    except Exception as error:
        envelope = recorded.answer_envelope(error)
        if envelope is not None:
            journal.keep(guarded.failed(envelope))
        raise
    finally:
        # Also if this is cancelled once more: a tool in a thread would go on writing.
        await asyncio.shield(go_on(transaction.close()))


async def _stoppable(work: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a tool; when cancelled, no longer: a thread would go on, holding the write lock.

    Its transaction is closed under it then, which ends what it writes there and nothing else.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel()
        go_on(_unwind(task))
        raise


async def _unwind(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("a stopped tool ended with %s: %s", type(error).__name__, error)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for what cannot be called back, such as a commit, also when cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        go_on(_unwind(task))
        await asyncio.wait({task})
        raise
