"""Deferred tool calls <-> awaiting effects: what waits for a person, and the answers given.

Owns the mapping between pydantic-ai's deferred requests and the ledger, and which calls of a tool
wait for approval; deciding is the ledger's.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_ai import ModelRetry
from pydantic_ai import exceptions as pai
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_core import to_json

from durably.agents import recorded
from durably.effects import Approval, EffectPolicy
from durably.execution.journal import Journal
from durably.execution.outcome import AttemptEnds, Suspended
from durably.ledger.steps import Ask, CallOutcome, ToolCall
from durably.lifecycle import EffectState
from durably.records import Effect

type Positioned = Callable[[ToolCallPart], tuple[ToolCall, Effect | None, EffectPolicy]]
"""A deferred call as the ledger knows it: its record, if there is one, and its tool's policy."""

type Schema = Callable[[str], dict[str, Any] | None]
"""The JSON schema of a tool's arguments, by its name."""


async def needs_approval(policy: EffectPolicy, args: dict[str, Any]) -> bool:
    """Whether the tool's author wants a person to see this call before it runs."""
    if policy.approval is None:
        return False
    when = policy.approval.when
    if isinstance(when, bool):
        return when
    answer = when(args)
    return bool(await answer) if inspect.isawaitable(answer) else bool(answer)


def answer_deferred(
    journal: Journal, requests: DeferredToolRequests, positioned: Positioned, schema: Schema
) -> DeferredToolResults | None:
    """Answer what has been decided; suspend the run for the rest.

    Raises:
        AttemptEnds: something is still undecided; it is recorded as awaiting.
    """
    results = DeferredToolResults()
    waiting: list[str] = []
    for part in [*requests.approvals, *requests.calls]:
        call, found, policy = positioned(part)
        for_approval = any(part is asked for asked in requests.approvals)
        if found is not None and found.state.settled and found.result is not None:
            _answer(results, part, found.result, needs_approval=for_approval)
            continue
        if found is not None and found.approved and for_approval:
            results.approvals[part.tool_call_id] = _approval(part, found)
            continue
        waiting.append(call.position.call_id)
        if found is None:
            metadata = requests.metadata.get(part.tool_call_id)
            ask = _ask(requests, part, policy.approval, metadata, schema)
            journal.keep(CallOutcome(call, EffectState.AWAITING, asked=True, ask=ask))
    if waiting:
        raise AttemptEnds(Suspended("effects", {"effects": sorted(waiting)}))
    return results


def _ask(
    requests: DeferredToolRequests,
    part: ToolCallPart,
    approval: Approval | None,
    metadata: Mapping[str, Any] | None,
    schema: Schema,
) -> Ask:
    shown: dict[str, Any] = dict(metadata or {})
    if any(part is call for call in requests.calls):
        return Ask("question" if "question" in shown else "answer", _shown(shown))
    if (parameters := schema(part.tool_name)) is not None:
        shown["schema"] = parameters
    if approval is None:
        return Ask("approval", _shown(shown))
    within, queue = approval.within_seconds, approval.escalate_queue
    return Ask("approval", _shown(shown), within, approval.on_expiry, queue)


def _shown(request: dict[str, Any]) -> str:
    return to_json(request, fallback=str).decode()


def _approval(part: ToolCallPart, found: Effect) -> ToolApproved | bool:
    """The approval of a call, with the arguments that were approved."""
    approved: Any = json.loads(found.args or "{}")
    if approved == part.args_as_dict():
        return True
    return ToolApproved(override_args=approved)


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
