"""One step of a tool in flight: a call inside a call, under the same policies.

Owns what is different from a tool's call: its reader is the tool's code, not the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from durably.agents import recorded
from durably.agents.approvals import approval_ask, needs_approval
from durably.agents.guarded import Guarded
from durably.agents.once import once, settle_doubt
from durably.agents.policies import repeatable, transactional
from durably.effects import EffectKind
from durably.errors import OutcomeUnknown, StepFailed
from durably.execution.outcome import Waits
from durably.ledger.written import CallOutcome
from durably.lifecycle import EffectState
from durably.records import Effect

if TYPE_CHECKING:
    from durably.agents.inside import InsideCall


@dataclass
class GuardedStep(Guarded):
    """A step that the policies decide about.

    Attributes:
        inside: the call that it is a part of.
        may_wait: whether the tool around it can be left, and run again, for a person to decide.
    """

    inside: InsideCall = field(kw_only=True)
    may_wait: bool = field(kw_only=True)

    boundary = "step"

    def replay(self, effect: Effect) -> Any:
        assert effect.result is not None, "a settled effect, or one of unknown outcome, has one"
        reason = recorded.failure(effect.result)
        if reason is not None and effect.resolved_by is not None:
            raise StepFailed(reason)
        return recorded.replay(effect.result)

    def counted(self, answer: Any) -> Any:
        return answer  # pydantic-ai counts calls of tools, not what they consist of.

    def unknown(self, text: str) -> str:
        return recorded.unknown(text)

    def tell(self, text: str) -> Any:
        raise OutcomeUnknown(text)

    def ask(self) -> BaseException:
        call_id = self.call.position.call_id
        if not self.may_wait:
            return StepFailed(
                f"Step {call_id} is in doubt and waits for a person, and {self.call.tool_name!r} "
                "cannot be left meanwhile: declare it metadata=effects.WAITS."
            )
        return self.inside.ask(call_id)


async def run_step(step: GuardedStep) -> Any:
    """Do a step, or answer it with what is recorded of it.

    Returns:
        What it returned, read back from JSON.

    Raises:
        Waits: a person is asked about it.
        StepFailed: it was denied, or it failed, or nobody knows.
        AttemptEnds: the attempt is to do nothing more.
    """
    found = step.journal.effects.find(step.call.position)
    if found is not None and found.state.settled:
        return step.replay(found)
    control = step.journal.control
    if step.may_wait:
        # The tool runs again anyway: a worker that leaves need not wait for the rest of it.
        control.check_before_step()
    else:
        control.check_before_acting()
    if found is not None and found.state is not EffectState.AWAITING:
        return _read_back(step, await settle_doubt(step, found))
    _wait_for_approval(step, found, await needs_approval(step.policy, step.args))
    match step.policy.kind:
        case EffectKind.TRANSACTIONAL:
            result = await transactional(step)
        case EffectKind.ONCE:
            result = await once(step)
        case _:
            result = await repeatable(step)
    return _read_back(step, result)


def _read_back(step: GuardedStep, result: Any) -> Any:
    """The result as a later attempt would read it, so that a tool meets no other type then."""
    return recorded.replay(recorded.returned(step.call.tool_name, result))


def _wait_for_approval(step: GuardedStep, found: Effect | None, needed: bool) -> None:
    """Leave the tool until somebody has approved the step.

    Raises:
        Waits: nobody has yet.
        StepFailed: the tool cannot be left.
    """
    if found is not None and found.approved:
        return
    if found is None and not needed:
        return
    waits = step.ask()
    if found is None and isinstance(waits, Waits):
        ask = approval_ask(step.policy.approval, "{}")
        step.journal.keep(CallOutcome(step.call, EffectState.AWAITING, asked=True, ask=ask))
    raise waits
