"""The capability around model requests: checkpoint each response, hand back a saved one.

Owns what happens between the model and the ledger; tool calls are the guard's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_ai import AgentRunResult, RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import WrapModelRequestHandler, WrapRunHandler
from pydantic_ai.messages import ModelMessage, ModelResponse, UserPromptPart
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults
from pydantic_ai.usage import RunUsage

from durably import boundaries
from durably.agents.approvals import answer_deferred
from durably.agents.attempt import AttemptState
from durably.agents.codec import decode_prompt
from durably.agents.fingerprint import Fingerprint
from durably.agents.history import message_to_json
from durably.agents.positions import after_responses, count_responses, last_response
from durably.agents.pricing import response_name
from durably.agents.usage import counters_of, usage_after
from durably.agents.whole import check_whole
from durably.execution.contained import contained
from durably.execution.outcome import AttemptEnds, Discarded, HandedBack, Suspended


@dataclass
class Checkpoints(AbstractCapability[Any]):
    """Outermost: what it returns is what the run goes on with, so that is what it saves."""

    state: AttemptState | None = None

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")

    async def wrap_run(
        self, ctx: RunContext[Any], *, handler: WrapRunHandler
    ) -> AgentRunResult[Any]:
        """Keep what the application's code raises in here.

        It runs in a task of pydantic-ai's own, and asyncio lets SystemExit and KeyboardInterrupt
        out of every task into the event loop, whoever awaits it.
        """
        return await contained(f"Agent {self._attempt.journal.run.agent!r}", handler())

    async def wrap_model_request(
        self,
        ctx: RunContext[Any],
        *,
        request_context: ModelRequestContext,
        handler: WrapModelRequestHandler,
    ) -> ModelResponse:
        state = self._attempt
        if state.waiting:
            raise AttemptEnds(state.suspension())  # What was approved beside it is carried out.
        state.journal.control.check_before_step()
        offered = request_context.model_request_parameters.function_tools
        state.tools = {tool.name: tool for tool in offered}
        await self._check_change(request_context)
        if state.replay is not None:
            # The response was paid for by an earlier attempt: the model is not asked again.
            response, state.replay = state.replay, None
            await state.journal.write()
            await self._check_response(ctx, response, request_context, replayed=True)
            return response
        # A response that a capability rejected (ModelRetry) was paid for as well.
        await self._save_rejected(ctx, request_context.model)
        await state.spending.check_request(ctx.usage, request_context.model)
        await self._steer(ctx)
        before = counters_of(ctx.usage)
        boundaries.reached("model:before")
        state.asking = True
        try:
            # Here as well: pydantic-ai may ask in a task of its own.
            response = await contained("The model", handler(request_context))
        finally:
            state.asking = False
        boundaries.reached("model:after")
        check_whole(response, request_context)
        state.spending.pay(response, request_context.model)
        await self._save(ctx, response, before)
        if state.journal.control.leaving:
            raise AttemptEnds(HandedBack())
        await self._check_response(ctx, response, request_context, replayed=False)
        return response

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[Any], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        """Suspend for calls in doubt, and for waits, before anybody else's handler answers them.

        Whoever is to be asked about the others is asked now as well.
        """
        state = self._attempt
        if {call.tool_call_id for call in requests.calls} & (state.asked.keys() | state.waits):
            return answer_deferred(state, ctx, requests)
        return None

    @property
    def _attempt(self) -> AttemptState:
        assert self.state is not None, "made by the runner, with its state"
        return self.state

    async def _steer(self, ctx: RunContext[Any]) -> None:
        """Show the model what was enqueued to steer this run, with the request that comes now."""
        state = self._attempt
        shown = {steer.run_id for steer, _ in state.steers}
        for steer in await state.journal.steers():
            if steer.run_id not in shown:
                part = UserPromptPart(decode_prompt(steer.prompt))
                state.steers.append((steer, part))
                ctx.enqueue(part)

    async def _check_response(
        self,
        ctx: RunContext[Any],
        response: ModelResponse,
        request_context: ModelRequestContext,
        *,
        replayed: bool,
    ) -> None:
        state = self._attempt
        calls = sum(call.tool_name in state.tools for call in response.tool_calls)
        await state.spending.check_response(
            ctx.usage, request_context.model, calls, replayed=replayed
        )

    async def _save_rejected(self, ctx: RunContext[Any], asked: Model) -> None:
        """Save what came of a response that was turned down, with the request that says why.

        Without the request, a later attempt would take the response for an accepted one.
        """
        state = self._attempt
        new = state.news(ctx.messages)
        if count := count_responses(new):
            for message in new:
                if isinstance(message, ModelResponse):
                    state.spending.pay(message, asked)
            await self._append(state.unsaved(ctx.messages), ctx.usage)
            state.known_responses += count
            tail = after_responses(new, count)
            state.last_known = len(ctx.messages) - len(tail) - 1, last_response(new)
            state.saved_requests = len(tail)
            state.foreign = ()

    async def _save(
        self, ctx: RunContext[Any], response: ModelResponse, before: Mapping[str, Any]
    ) -> None:
        state = self._attempt
        new = state.unsaved(ctx.messages)
        await self._append([*new, response], usage_after(before, ctx.usage, response))
        state.know(ctx.messages, response)
        state.saved_requests = 0
        state.foreign = ()

    async def _append(self, messages: list[ModelMessage], usage: RunUsage) -> None:
        state = self._attempt
        seen = state.seen_in(messages)
        await state.journal.checkpoint(
            [(message.kind, message_to_json(message)) for message in messages],
            state.spending.usage_json(usage),
            state.spending.cost_nanousd,
            seen,
            _answered_by(messages),
        )
        state.steers = [shown for shown in state.steers if shown[0] not in seen]
        state.response_seq = state.journal.last_response
        state.shown = None

    async def _check_change(self, request_context: ModelRequestContext) -> None:
        state = self._attempt
        journal = state.journal
        now, text = state.fingerprints.take(
            request_context.model, request_context.model_request_parameters, state.stand_ins
        )
        journal.note_fingerprint(text)
        # Compared once, at the first step: the same request of the attempt before is its twin.
        last, journal.last_fingerprint = journal.last_fingerprint, None
        if last is None or not journal.length:
            return
        changes = now.changes_since(Fingerprint.from_json(last))
        if not changes:
            return
        journal.note("agent_changed", policy=state.on_change, **changes)
        if state.on_change == "suspend":
            raise AttemptEnds(Suspended("change", {"changes": changes}))
        if state.on_change == "discard":
            raise AttemptEnds(
                Discarded(f"The agent changed in the middle of the run: {json.dumps(changes)}.")
            )


def _answered_by(messages: list[ModelMessage]) -> str | None:
    response = last_response(messages)
    return None if response is None else response_name(response)
