"""Deferred tool calls <-> awaiting effects: what waits for a person, and the answers given.

Owns the mapping between pydantic-ai's deferred requests and the ledger.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic_ai import ModelRetry
from pydantic_ai import exceptions as pai
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDenied

from durably.agents import recorded
from durably.execution.journal import Journal
from durably.execution.outcome import AttemptEnds, Suspended
from durably.ledger.steps import CallOutcome, ToolCall
from durably.lifecycle import EffectState
from durably.records import Effect


def answer_deferred(
    journal: Journal,
    requests: DeferredToolRequests,
    positioned: Callable[[ToolCallPart], tuple[ToolCall, Effect | None]],
) -> DeferredToolResults | None:
    """Answer what has been decided; suspend the run for the rest.

    Raises:
        AttemptEnds: something is still undecided; it is recorded as awaiting.
    """
    results = DeferredToolResults()
    waiting: list[str] = []
    for part in [*requests.approvals, *requests.calls]:
        call, found = positioned(part)
        if found is not None and found.state.settled and found.result is not None:
            needs_approval = any(part is asked for asked in requests.approvals)
            _answer(results, part, found.result, needs_approval=needs_approval)
            continue
        waiting.append(call.position.call_id)
        if found is None:
            journal.keep(CallOutcome(call, EffectState.AWAITING, asked=True))
    if waiting:
        raise AttemptEnds(Suspended("effects", {"effects": sorted(waiting)}))
    return results


def _answer(
    results: DeferredToolResults, part: ToolCallPart, envelope: str, *, needs_approval: bool
) -> None:
    try:
        value = recorded.replay(envelope)
    except ModelRetry as retry:
        value = retry
    except Exception as error:
        if not isinstance(error, getattr(pai, "ToolFailed", ())):
            raise
        # A failed answer to a request for approval is a denial that says why.
        value = ToolDenied(str(error)) if needs_approval else error
    if not needs_approval:
        results.calls[part.tool_call_id] = value
    else:
        # An approval takes no result: the call goes ahead, and the ledger answers it.
        results.approvals[part.tool_call_id] = value if isinstance(value, ToolDenied) else True
