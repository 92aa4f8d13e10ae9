"""Deferred tool calls <-> awaiting effects: what waits for a person, and the answers given.

Owns the mapping between pydantic-ai's deferred requests and the ledger, and which calls of a tool
wait for approval; deciding is the ledger's.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

from pydantic_ai import ModelRetry, RunContext
from pydantic_ai import exceptions as pai
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_core import to_json

from durably.agents import recorded
from durably.agents.attempt import AttemptState
from durably.agents.calls import recorded_call
from durably.agents.positions import position_of
from durably.effects import Approval, EffectPolicy, policy_of
from durably.execution.outcome import AttemptEnds
from durably.ledger.written import Ask, CallOutcome
from durably.lifecycle import EffectState
from durably.records import CallPosition, Effect

PLACEHOLDER = "This call waits."
"""Nobody reads it: see `answer_deferred`."""


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
    state: AttemptState, ctx: RunContext[Any], requests: DeferredToolRequests
) -> DeferredToolResults | None:
    """Answer what has been decided; suspend the run for the rest.

    What was approved is carried out before, and need not wait for the others: those are answered
    with a placeholder then, and the attempt ends before the model, or anybody, is given it.

    Raises:
        AttemptEnds: something is still undecided, or not over; it is recorded as awaiting.
    """
    results = DeferredToolResults()
    waiting: list[ToolCallPart] = []
    carried_out = False
    for part in [*requests.approvals, *requests.calls]:
        if part.tool_call_id in state.asked or part.tool_call_id in state.waits:
            waiting.append(part)
            continue
        position = position_of(part, ctx.messages, state.response_seq)
        assert position is not None, "only the model's own calls are deferred"
        found = state.journal.effects.find(position)
        for_approval = any(part is approval for approval in requests.approvals)
        if found is not None and found.state.settled and found.result is not None:
            _answer(results, part, found.result, needs_approval=for_approval)
        elif found is not None and found.approved and for_approval:
            results.approvals[part.tool_call_id] = _approval(part, found)
            carried_out = True
        else:
            waiting.append(part)
            state.undecided.append(position.call_id)
            if found is None:
                _ask(state, position, part, requests)
    if waiting and not carried_out:
        raise AttemptEnds(state.suspension())
    for part in waiting:
        if any(part is approval for approval in requests.approvals):
            results.approvals[part.tool_call_id] = ToolDenied(PLACEHOLDER)
        else:
            results.calls[part.tool_call_id] = PLACEHOLDER
    return results


def _ask(
    state: AttemptState, position: CallPosition, part: ToolCallPart, requests: DeferredToolRequests
) -> None:
    """Record, with the next write, that a person is asked about a call."""
    tool = state.tools.get(part.tool_name)
    policy = policy_of(tool.metadata if tool else None, state.default_effect)
    shown: dict[str, Any] = dict(requests.metadata.get(part.tool_call_id) or {})
    if any(part is call for call in requests.calls):
        ask = Ask("question" if "question" in shown else "answer", _shown(shown))
    else:
        if tool is not None:
            shown["schema"] = tool.parameters_json_schema
        ask = approval_ask(policy.approval, _shown(shown))
    call = recorded_call(state.journal, position, part, None, policy)
    state.journal.keep(CallOutcome(call, EffectState.AWAITING, asked=True, ask=ask))


def approval_ask(approval: Approval | None, shown: str) -> Ask:
    """What a person is asked who is to let a call run, and for how long, as was declared."""
    if approval is None:
        return Ask("approval", shown)
    within, queue = approval.within_seconds, approval.escalate_queue
    return Ask("approval", shown, within, approval.on_expiry, queue)


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
