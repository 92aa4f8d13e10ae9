"""durably, but the intent of a once tool is written nowhere: two commits a step instead of three.

Nobody could use it: after a crash nothing says that a tool may have run. It shows what is left, at
least, if intents are committed with the response that asks for the tool, and why they are not is in
docs/decisions/0022.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from durably.execution.effects import Effects
from durably.execution.known import KnownCalls
from durably.ledger.written import ToolCall
from durably.records import Claim, Effect
from runs.contestant import Place, RunOne
from runs.contestants import durable
from runs.workload import Workload


@asynccontextmanager
async def opened(place: Place, workload: Workload) -> AsyncGenerator[RunOne]:
    begin = Effects.begin
    Effects.begin = _begun
    try:
        async with durable.opened(place, workload) as one:
            yield one
    finally:
        Effects.begin = begin


async def _begun(effects: Effects, call: ToolCall) -> Effect:
    """What is known of a call whose intent was recorded."""
    return KnownCalls((), Claim(run_id=0, attempt=1, worker_id="")).begun(call)
