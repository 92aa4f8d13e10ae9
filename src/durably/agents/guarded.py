"""One tool call in flight: what the ledger calls it, how to run it, what can be said of it.

Owns the tool's start; which policy decides about it is in `policies`, `once` and `late`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_ai import CallDeferred, RunContext
from pydantic_ai.capabilities.abstract import WrapToolExecuteHandler

from durably import boundaries
from durably.agents import recorded
from durably.agents.attempt import AttemptState
from durably.effects import EffectPolicy
from durably.errors import StepFailed
from durably.execution.call import Call, set_current_call
from durably.execution.contained import contained
from durably.execution.inside import Inside
from durably.execution.journal import Journal
from durably.execution.outcome import AttemptEnds
from durably.ledger.database import ToolTransaction
from durably.ledger.written import CallOutcome, ToolCall, clock
from durably.lifecycle import EffectState
from durably.records import Effect

_UNCHANGING = frozenset({str, int, float, bool, type(None)})


@dataclass
class Guarded:
    """A call that the policies decide about.

    Attributes:
        fit: False if its arguments are none that the tool, as it is now, would take.
        started: True once the tool itself was called.
        began: when that was, by `clock`.
        doubted: True if an earlier try of it may have happened, and it is repeated all the same.
        repeated: True once it was run again in this attempt, as it had not happened.
        code: what the tool's own code may do durably, in this go of it.
        make_code: makes that; None where it may do nothing of the kind.
    """

    state: AttemptState
    ctx: RunContext[Any]
    call: ToolCall
    args: dict[str, Any]
    policy: EffectPolicy
    handler: WrapToolExecuteHandler
    fit: bool = True
    started: bool = False
    began: float | None = None
    doubted: bool = False
    repeated: bool = False
    code: Inside | None = None
    make_code: Callable[[Guarded], Inside] | None = None

    boundary = "tool"
    """What its boundaries are called."""

    @property
    def journal(self) -> Journal:
        """The attempt's record."""
        return self.state.journal

    async def run(self, described: Call | None = None) -> Any:
        """Run the tool, unless the attempt may not act any more."""
        if described is None and self.make_code is not None:
            self.code = self.make_code(self)
        set_current_call(described or self.describe())
        boundaries.reached(f"{self.boundary}:before", self.call.tool_name)
        # Frozen since the last look, or kept waiting for the loop? Then another attempt may be
        # asking about this call by now.
        self.journal.control.check_before_acting()
        self.started, self.began = True, clock()
        try:
            result = await contained(self.whose, self.handler(copied(self.args)))
        except StepFailed as error:
            raise recorded.as_answer(error) from error
        finally:
            if self.code is not None:
                await self.code.finish()
        boundaries.reached(f"{self.boundary}:after", self.call.tool_name)
        return result

    @property
    def whose(self) -> str:
        """Whose code runs, as a sentence begins."""
        return f"Tool {self.call.tool_name!r}"

    def describe(self, transaction: ToolTransaction | None = None) -> Call:
        """The call as ``durably.current_call()`` shows it."""
        run = self.journal.run
        return Call(
            run_key=run.key,
            attempt=run.attempt,
            call_id=self.call.position.call_id,
            tool_name=self.call.tool_name,
            args=copied(self.args),
            idempotency_key=self.call.idempotency_key,
            transaction=transaction,
            inside=None if transaction is not None else self.code,
        )

    def replay(self, effect: Effect) -> Any:
        """Answer with what is recorded."""
        return replay(self.ctx, effect)

    def unknown(self, text: str) -> str:
        """What is recorded of a call whose outcome is unknown, and which is not asked about."""
        return recorded.returned(self.call.tool_name, text)

    def tell(self, text: str) -> Any:
        """Answer a call whose outcome is unknown."""
        return self.counted(text)

    def ask(self) -> BaseException:
        """What to raise for a call that a person is asked about."""
        self.state.asked[self.call.tool_call_id] = [self.call.position.call_id]
        return self.defer()

    def defer(self) -> BaseException:
        """What to raise for a call that waits: the other calls of its response run meanwhile.

        Pydantic-ai lets a call defer once. One that did, to be approved, ends the attempt.
        """
        if self.ctx.tool_call_approved:
            return AttemptEnds(self.state.suspension())
        return CallDeferred()

    def counted(self, answer: Any) -> Any:
        """Count a call that is answered without being run: pydantic-ai counts the others."""
        self.ctx.usage.tool_calls += 1
        return answer

    def uncount(self) -> None:
        """Take back that a call was counted: nothing of it has happened, and it is made again."""
        self.ctx.usage.tool_calls -= 1

    def done(self, envelope: str) -> CallOutcome:
        """The outcome of a call that returned."""
        return self._ended(EffectState.DONE, envelope)

    def failed(self, envelope: str) -> CallOutcome:
        """The outcome of a call that told the model that it failed, or to try again."""
        return self._ended(EffectState.FAILED, envelope)

    def _ended(self, state: EffectState, envelope: str) -> CallOutcome:
        return CallOutcome(self.call, state, envelope, began=self.began, ended=clock())


def copied(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a tool's own, to do with as it likes.

    What the ledger holds, what ``reconcile`` is asked about, and what the tool is given when it
    runs again, are the arguments that the model gave.
    """
    if all(type(value) in _UNCHANGING for value in args.values()):
        return dict(args)
    try:
        return copy.deepcopy(args)
    except Exception:  # Of a type that cannot be copied: the agent's own.
        return args


def replay(ctx: RunContext[Any], effect: Effect) -> Any:
    """Answer a call with what is recorded of it, and count it.

    If it ran, that was in an attempt whose count ended with the checkpoint before it. One that
    raised is not counted, as it was not then.
    """
    assert effect.result is not None, "a settled effect, or one the model was told of, has one"
    answer = recorded.replay(effect.result)
    ctx.usage.tool_calls += 1
    return answer
