"""The capability around tool calls: consult the ledger, run at most what the policy allows.

Owns which call it is and which policy decides; the policies are in `policies` and `once`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import ValidationError
from pydantic_ai import ApprovalRequired, CallDeferred, ModelRetry, RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import WrapToolExecuteHandler, WrapToolValidateHandler
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, ToolDefinition
from pydantic_ai.toolsets import AbstractToolset

from durably.agents.approvals import answer_deferred, needs_approval
from durably.agents.attempt import AttemptState
from durably.agents.calls import recorded_call
from durably.agents.gone import WithStandIns
from durably.agents.guarded import Guarded, copied, replay
from durably.agents.inside import InsideCall, adopt_children, unless_it_waits
from durably.agents.once import once, settle_doubt
from durably.agents.policies import repeatable, transactional
from durably.agents.positions import position_of
from durably.effects import EffectKind, policy_of
from durably.execution.journal import Journal
from durably.lifecycle import EffectState
from durably.records import CallPosition, Effect


@dataclass
class EffectGuard(AbstractCapability[Any]):
    """Innermost: intent is recorded last before the tool runs, its result first after it."""

    state: AttemptState | None = None
    unfit: set[CallPosition] = field(default_factory=set[CallPosition])

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        return WithStandIns(toolset, self._attempt)

    async def wrap_tool_validate(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: str | dict[str, Any],
        handler: WrapToolValidateHandler,
    ) -> dict[str, Any]:
        """Let a recorded call through even if the tool's schema has changed since.

        Otherwise the model would be asked to make a call again that has already happened.
        """
        if isinstance(args, dict):
            args = copied(args)  # What is not converted is the message's own.
        position = self._position(ctx, call)
        found = None if position is None else self._journal.effects.find(position)
        if position is None or found is None:
            return await handler(args)
        if found.state.settled:
            return _as_object(args)
        try:
            return await handler(args)
        except (ValidationError, ModelRetry):
            self.unfit.add(position)
            return _as_object(args)

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        position = self._position(ctx, call)
        if position is None:
            return await handler(args)
        found = self._journal.effects.find(position)
        if found is not None and found.state.settled:
            adopt_children(self._attempt, ctx, self._journal.effects.inside(position))
            return replay(ctx, found)
        self._journal.control.check_before_acting()
        guarded = self._guarded(ctx, position, call, tool_def, args, handler)
        if found is not None and found.state is not EffectState.AWAITING:
            return await settle_doubt(guarded, found)
        await _wait_for_people(ctx, guarded, found)
        match guarded.policy.kind:
            case EffectKind.READ | EffectKind.IDEMPOTENT | EffectKind.WAITS:
                return await unless_it_waits(guarded, repeatable(guarded))
            case EffectKind.TRANSACTIONAL:
                return await transactional(guarded)
            case EffectKind.ONCE:
                return await once(guarded)

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Calls that nobody in this process can settle wait in the ledger for a person."""
        return answer_deferred(self._attempt, ctx, requests)

    @property
    def _attempt(self) -> AttemptState:
        assert self.state is not None, "made by the runner, with its state"
        return self.state

    @property
    def _journal(self) -> Journal:
        return self._attempt.journal

    def _position(self, ctx: RunContext[Any], call: ToolCallPart) -> CallPosition | None:
        return position_of(call, ctx.messages, self._attempt.response_seq)

    def _guarded(
        self,
        ctx: RunContext[Any],
        position: CallPosition,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Guarded:
        policy = policy_of(tool_def.metadata, self._attempt.default_effect)
        return Guarded(
            state=self._attempt,
            ctx=ctx,
            call=recorded_call(self._journal, position, call, args, policy),
            args=args,
            policy=policy,
            handler=handler,
            fit=position not in self.unfit,
            make_code=None if policy.kind is EffectKind.TRANSACTIONAL else InsideCall,
        )


async def _wait_for_people(ctx: RunContext[Any], guarded: Guarded, found: Effect | None) -> None:
    """Defer a call that somebody has to approve or answer first, and has not.

    Raises:
        ApprovalRequired, CallDeferred: so that the other calls of the response run meanwhile.
    """
    if found is not None and found.ask != "approval" and not found.approved:
        raise CallDeferred
    if ctx.tool_call_approved and (found is None or found.approved):
        return
    if found is not None or await needs_approval(guarded.policy, guarded.args):
        raise ApprovalRequired


def _as_object(args: str | dict[str, Any]) -> dict[str, Any]:
    """Arguments as a recorded call had them; they were validated when it was made."""
    if not isinstance(args, str):
        return args
    try:
        value = json.loads(args or "{}")
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
