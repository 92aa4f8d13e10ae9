"""What an attempt knows of its run's calls: as earlier attempts left them, and as it told since.

Owns that what was recorded as it was told is not read back from the ledger. What it makes of that
has this process's times; those of the database are in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from durably.ledger.written import CallOutcome, ToolCall
from durably.lifecycle import EffectState
from durably.records import CallPosition, Claim, Effect


class KnownCalls:
    """The calls of one run, each as the ledger holds it.

    Args:
        effects: what earlier attempts left.
        claim: of the attempt that records calls from now on.
    """

    def __init__(self, effects: Iterable[Effect], claim: Claim) -> None:
        self._effects = {effect.position: effect for effect in effects}
        self._claim = claim

    def __iter__(self) -> Iterator[Effect]:
        return iter(self._effects.values())

    def find(self, position: CallPosition) -> Effect | None:
        """What is recorded of a call; None if nothing is."""
        return self._effects.get(position)

    def inside(self, position: CallPosition) -> list[Effect]:
        """What is recorded of the steps and waits inside a call."""
        return [e for e in self if e.position.step and e.position[:2] == position[:2]]

    def put(self, effect: Effect) -> Effect:
        """Note a call as the ledger holds it."""
        self._effects[effect.position] = effect
        return effect

    def forget(self, position: CallPosition) -> None:
        """Note that nothing is recorded of a call any more."""
        self._effects.pop(position, None)

    def begun(self, call: ToolCall) -> Effect:
        """Note that the intent of a call is recorded."""
        started = _started(call, self._claim)
        if (before := self.find(call.position)) is not None:
            # One in doubt, or one that was approved: what is known of it stays known.
            started = replace(
                before,
                state=started.state,
                attempt=started.attempt,
                started_at=started.started_at,
                asked=False,
                result=None,
                error=None,
                finished_at=None,
            )
        return self.put(started)

    def ended(self, outcome: CallOutcome) -> Effect:
        """Note that an outcome is recorded, of a call that asks nobody."""
        assert outcome.ask is None, "what asks somebody rides along with a step"
        before = self.find(outcome.call.position) or _started(outcome.call, self._claim)
        return self.put(
            replace(
                before,
                state=outcome.state,
                asked=outcome.asked,
                result=outcome.result,
                error=outcome.error if outcome.error is not None else before.error,
                finished_at=datetime.now(UTC) if outcome.state.settled else None,
            )
        )


def _started(call: ToolCall, claim: Claim) -> Effect:
    """A call whose intent was just recorded for the first time."""
    return Effect(
        run_id=claim.run_id,
        position=call.position,
        tool_name=call.tool_name,
        tool_call_id=call.tool_call_id,
        args=call.args,
        policy=call.policy,
        on_doubt=call.on_doubt,
        state=EffectState.STARTED,
        asked=False,
        attempt=claim.attempt,
        idempotency_key=call.idempotency_key,
        result=None,
        error=None,
        resolved_by=None,
        started_at=datetime.now(UTC),
        finished_at=None,
        ask=None,
        request={},
        approved=False,
        asked_at=None,
        expires_at=None,
        on_expiry=None,
    )
