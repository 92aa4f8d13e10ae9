"""The capability around output functions: code that runs on the model's final answer.

Owns that such a function, which may act on the world like any tool, is not run twice silently.
Outputs without a function are only parsed, and are left alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.capabilities.abstract import WrapOutputProcessHandler
from pydantic_ai.output import OutputContext
from pydantic_core import to_json

from durably import boundaries
from durably.agents import recorded
from durably.agents.attempt import AttemptState
from durably.agents.codec import decode_output, encode_output
from durably.agents.positions import last_response, position_of
from durably.effects import DEFAULT, EffectKind, EffectPolicy
from durably.errors import NotDone, ResultNotSerializable
from durably.execution.call import Call, set_current_call
from durably.execution.contained import contained
from durably.execution.outcome import AttemptEnds, Suspended
from durably.ledger.written import CallOutcome, ToolCall
from durably.lifecycle import EffectState
from durably.records import CallPosition, Effect
from durably.retry import nothing_was_sent
from durably.wording import text_of, worded


@dataclass
class OutputGuard(AbstractCapability[Any]):
    """Innermost: records the intent of an output function, then its output.

    Output functions have no metadata, so they run under the agent's default policy. The model has
    finished when they run, so nobody is told of a doubt: it is retried, or a person is asked.
    """

    state: AttemptState | None = None
    policy: EffectPolicy = DEFAULT
    output_type: Any = str

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="innermost")

    async def wrap_output_process(
        self,
        ctx: RunContext[Any],
        *,
        output_context: OutputContext,
        output: Any,
        handler: WrapOutputProcessHandler,
    ) -> Any:
        safe = self.policy.kind is not EffectKind.ONCE
        if not output_context.has_function or ctx.partial_output or safe:
            return await handler(output)
        position = self._position(ctx, output_context)
        found = self._attempt.journal.effects.find(position)
        if found is not None and found.state.settled:
            return self._replay(found)
        call = self._call(position, output_context, output)
        if found is not None and self.policy.on_doubt != "retry":
            await self._ask(call, found.error)
        return await self._once(call, output, handler, doubted=found is not None)

    async def _once(
        self, call: ToolCall, output: Any, handler: WrapOutputProcessHandler, *, doubted: bool
    ) -> Any:
        journal = self._attempt.journal
        effect = await journal.effects.begin(call)
        if effect.state.settled:
            return self._replay(effect)
        journal.control.check_before_acting()
        set_current_call(self._described(call, output))
        boundaries.reached("output:before", call.tool_name)
        try:
            result = await contained(f"Output function {call.tool_name!r}", handler(output))
        except Exception as error:
            envelope = recorded.answer_envelope(error)
            if envelope is not None:
                await journal.effects.finish(CallOutcome(call, EffectState.FAILED, result=envelope))
                raise
            why = worded(error)
            if isinstance(error, NotDone) or nothing_was_sent(error):
                if not doubted:  # An earlier try may have happened: the intent stays.
                    await journal.effects.withdraw(call, why)
                raise
            await journal.effects.finish(CallOutcome(call, EffectState.IN_DOUBT, error=why))
            if self.policy.on_doubt != "retry":
                await self._ask(call, why)
            raise
        boundaries.reached("output:after", call.tool_name)
        try:
            text = encode_output(journal.run.agent, result)
        except ResultNotSerializable as error:
            await journal.effects.finish(
                CallOutcome(call, EffectState.IN_DOUBT, error=text_of(error))
            )
            raise
        envelope = f'{{"return":{{"return_value":{text}}}}}'
        effect = await journal.effects.finish(CallOutcome(call, EffectState.DONE, result=envelope))
        return result if effect.result == envelope else self._replay(effect)

    def _described(self, call: ToolCall, output: Any) -> Call:
        run = self._attempt.journal.run
        return Call(
            run_key=run.key,
            attempt=run.attempt,
            call_id=call.position.call_id,
            tool_name=call.tool_name,
            args=cast("dict[str, Any]", output) if isinstance(output, dict) else {"output": output},
            idempotency_key=call.idempotency_key,
        )

    async def _ask(self, call: ToolCall, error: str | None) -> None:
        """Suspend the run for a person to say whether the function did its work.

        Raises:
            AttemptEnds: always.
        """
        outcome = CallOutcome(call, EffectState.IN_DOUBT, error=error, asked=True)
        await self._attempt.journal.effects.finish(outcome)
        raise AttemptEnds(Suspended("effects", {"effects": [call.position.call_id]}))

    def _replay(self, effect: Effect) -> Any:
        assert effect.result is not None, "a settled effect has an envelope"
        envelope = json.loads(effect.result)
        if "return" not in envelope:
            return recorded.replay(effect.result)
        return decode_output(json.dumps(envelope["return"]["return_value"]), self.output_type)

    @property
    def _attempt(self) -> AttemptState:
        assert self.state is not None, "made by the runner, with its state"
        return self.state

    def _position(self, ctx: RunContext[Any], output_context: OutputContext) -> CallPosition:
        """The position of the output's call; a text's comes after all calls of its response."""
        response_seq = self._attempt.response_seq
        if output_context.tool_call is not None:
            position = position_of(output_context.tool_call, ctx.messages, response_seq)
            if position is not None:
                return position
        response = last_response(ctx.messages)
        return CallPosition(response_seq, len(response.tool_calls) if response else 0)

    def _call(self, position: CallPosition, output_context: OutputContext, output: Any) -> ToolCall:
        part = output_context.tool_call
        return ToolCall(
            position=position,
            tool_name=output_context.function_name or (part.tool_name if part else "output"),
            tool_call_id=part.tool_call_id if part else "",
            args=to_json(output, fallback=str).decode(),
            policy=self.policy.kind,
            on_doubt=self.policy.on_doubt,
            idempotency_key=self._attempt.journal.idempotency_key(position),
        )
