"""durably, but the intent of a once tool is written nowhere: two commits a step instead of three.

Nobody could use it: after a crash nothing says that a tool may have run. It shows what is left, at
least, if intents are committed with the response that asks for the tool, and why they are not is in
docs/decisions/0022.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from durably.execution.journal import Journal
from durably.ledger.written import ToolCall
from durably.lifecycle import EffectState
from durably.records import Effect
from runs.contestant import Place, RunOne
from runs.contestants import durable
from runs.workload import Workload


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    begin = Journal.begin
    Journal.begin = _begun
    try:
        async with durable.opened(place, workload) as one:
            yield one
    finally:
        Journal.begin = begin


async def _begun(journal: Journal, call: ToolCall) -> Effect:
    """What the ledger would have answered."""
    return Effect(
        run_id=journal.claim.run_id,
        position=call.position,
        tool_name=call.tool_name,
        tool_call_id=call.tool_call_id,
        args=call.args,
        policy=call.policy,
        on_doubt=call.on_doubt,
        state=EffectState.STARTED,
        asked=False,
        attempt=journal.claim.attempt,
        idempotency_key=call.idempotency_key,
        result=None,
        error=None,
        resolved_by=None,
        started_at=datetime.now(UTC),
        finished_at=None,
        ask=None,
        request={},
        approved=False,
        asked_at=None,
        expires_at=None,
        on_expiry=None,
    )
