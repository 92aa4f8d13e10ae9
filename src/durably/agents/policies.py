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
from durably.errors import LedgerUnavailable
from durably.ledger.database import ToolTransaction
from durably.wording import text_of, worded

log = logging.getLogger(__name__)

TRIES = 5
"""How often a tool runs whose transaction is lost: it may be the tool that cannot keep one."""

AGAIN_SECONDS = 0.2
"""How long until it runs again."""


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
    """Writes and result commit together; found without an outcome, nothing has happened.

    Nor has it if the database took the transaction away: the tool runs again, in another one.
    """
    for tries_left in reversed(range(TRIES)):
        try:
            return await _in_transaction(guarded, guarded.journal.ledger.transaction())
        except _TransactionLost as lost:
            if lost.counted:
                guarded.uncount()
            guarded.journal.control.check_lease()
            if not tries_left:
                raise lost.error from None
            log.warning("%s runs again: %s", guarded.call.tool_name, lost)
            await asyncio.sleep(AGAIN_SECONDS)
    raise AssertionError("the last try returns or raises")


class _TransactionLost(Exception):
    """The database took the transaction away, as when it restarts.

    Attributes:
        counted: whether the tool had returned, which pydantic-ai counts as a call.
    """

    def __init__(self, error: Exception, *, counted: bool) -> None:
        super().__init__(f"its transaction was lost: {text_of(error)}")
        self.error = error
        self.counted = counted


async def _in_transaction(guarded: Guarded, transaction: ToolTransaction) -> Any:
    journal = guarded.journal
    try:
        result = await _stoppable(guarded.run(guarded.describe(transaction)))
        if transaction.lost:
            gone = LedgerUnavailable("The tool's connection was lost.")
            raise _TransactionLost(gone, counted=True)
        outcome = guarded.done(recorded.returned(guarded.call.tool_name, result))
        if not transaction.begun:
            await journal.effects.finish(outcome)
            return result
        journal.control.check_before_acting()
        try:
            await _to_its_end(journal.effects.commit(transaction, outcome))
        except LedgerUnavailable as error:
            raise _TransactionLost(error, counted=True) from error
        return result
    except _TransactionLost:
        raise
    except Exception as error:
        if transaction.lost:
            raise _TransactionLost(error, counted=False) from error
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
        log.info("a stopped tool ended with %s", worded(error))


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for what cannot be called back, such as a commit, also when cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        go_on(_unwind(task))
        await asyncio.wait({task})
        raise
