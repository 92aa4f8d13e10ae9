"""One tool call in flight: what the ledger calls it, how to run it, what can be said of it.

Owns the tool's start; which policy decides about it is in `policies`, `once` and `late`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities.abstract import WrapToolExecuteHandler

from durably import boundaries
from durably.agents import recorded
from durably.agents.checkpoints import AttemptState
from durably.effects import EffectPolicy
from durably.execution.call import Call, set_current_call
from durably.execution.journal import Journal
from durably.ledger.database import ToolTransaction
from durably.ledger.steps import CallOutcome, ToolCall
from durably.lifecycle import EffectState
from durably.records import Effect


@dataclass
class Guarded:
    """A call that the policies decide about.

    Attributes:
        fit: False if its arguments are none that the tool, as it is now, would take.
        started: True once the tool itself was called.
    """

    state: AttemptState
    ctx: RunContext[Any]
    call: ToolCall
    args: dict[str, Any]
    policy: EffectPolicy
    handler: WrapToolExecuteHandler
    fit: bool = True
    started: bool = False

    @property
    def journal(self) -> Journal:
        """The attempt's record."""
        return self.state.journal

    async def run(self, described: Call | None = None) -> Any:
        """Run the tool, unless the attempt may not act any more."""
        set_current_call(described or self.describe())
        boundaries.reached("tool:before")
        # Frozen since the last look, or kept waiting for the loop? Then another attempt may be
        # asking about this call by now.
        self.journal.control.check_before_acting()
        self.started = True
        result = await self.handler(self.args)
        boundaries.reached("tool:after")
        return result

    def describe(self, transaction: ToolTransaction | None = None) -> Call:
        """The call as ``durably.current_call()`` shows it."""
        run = self.journal.run
        return Call(
            run_key=run.key,
            attempt=run.attempt,
            call_id=self.call.position.call_id,
            tool_name=self.call.tool_name,
            args=self.args,
            idempotency_key=self.call.idempotency_key,
            transaction=transaction,
        )

    def replay(self, effect: Effect) -> Any:
        """Answer with what is recorded."""
        return replay(self.ctx, effect)

    def counted(self, answer: Any) -> Any:
        """Count a call that is answered without being run: pydantic-ai counts the others."""
        self.ctx.usage.tool_calls += 1
        return answer

    def done(self, envelope: str) -> CallOutcome:
        """The outcome of a call that returned."""
        return CallOutcome(self.call, EffectState.DONE, result=envelope)

    def failed(self, envelope: str) -> CallOutcome:
        """The outcome of a call that told the model that it failed, or to try again."""
        return CallOutcome(self.call, EffectState.FAILED, result=envelope)


def replay(ctx: RunContext[Any], effect: Effect) -> Any:
    """Answer a call with what is recorded of it, and count it.

    If it ran, that was in an attempt whose count ended with the checkpoint before it. One that
    raised is not counted, as it was not then.
    """
    assert effect.result is not None, "a settled effect, or one the model was told of, has one"
    answer = recorded.replay(effect.result)
    ctx.usage.tool_calls += 1
    return answer
