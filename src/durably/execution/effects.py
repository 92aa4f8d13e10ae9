"""The effects of a run, as one attempt records them: intents, outcomes, waits, doubts.

Owns when what is said of a call is durable, each with a write of its own. What may ride along with
the next one is the journal's; what the ledger holds by now is `known`'s.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from durably import boundaries
from durably.errors import LeaseLost
from durably.execution.known import KnownCalls
from durably.execution.writes import Writes
from durably.ledger import children, evidence, steps, waits
from durably.ledger.database import ToolTransaction
from durably.ledger.waits import Wait
from durably.ledger.written import CallOutcome, ToolCall
from durably.records import CallPosition, Claim, Effect, NewRun


class Effects:
    """What is recorded of the calls of one run.

    Args:
        effects: what earlier attempts left.
        claim: of the attempt that records more.
    """

    def __init__(self, effects: Iterable[Effect], claim: Claim, writes: Writes) -> None:
        self._known = KnownCalls(effects, claim)
        self._claim = claim
        self._writes = writes

    def __iter__(self) -> Iterator[Effect]:
        return iter(self._known)

    def find(self, position: CallPosition) -> Effect | None:
        """What is recorded of a call; None if nothing is."""
        return self._known.find(position)

    def inside(self, position: CallPosition) -> list[Effect]:
        """What is recorded of the steps and waits inside a call."""
        return self._known.inside(position)

    async def begin(self, call: ToolCall) -> Effect:
        """Make the intent of a call durable before it runs.

        Raises:
            LeaseLost: another attempt owns the run; the call must not start.
        """
        boundaries.reached("intent:before", call.tool_name)
        instead = await self._writes.write(steps.record_intent, self._claim, call)
        boundaries.reached("intent:after", call.tool_name)
        return self._known.begun(call) if instead is None else self._known.put(instead)

    async def finish(self, outcome: CallOutcome) -> Effect:
        """Make the outcome of a call durable now; returns what the ledger holds.

        That is somebody else's word where late evidence or a person came first.
        """
        boundaries.reached("outcome:before", outcome.call.tool_name)
        instead = await self._writes.write(steps.record_outcome, self._claim, outcome)
        boundaries.reached("outcome:after", outcome.call.tool_name)
        return self._told(outcome, instead)

    def _told(self, outcome: CallOutcome, instead: Effect | None) -> Effect:
        return self._known.ended(outcome) if instead is None else self._known.put(instead)

    async def wait(self, call: ToolCall, wait: Wait) -> Effect:
        """Make it durable that a call waits for a time or a signal, or find out that it is over.

        Raises:
            LeaseLost: another attempt owns the run.
        """
        boundaries.reached("wait:before", call.tool_name)
        effect = await self._writes.write(waits.begin, self._claim, call, wait)
        boundaries.reached("wait:after", call.tool_name)
        return self._known.put(effect)

    async def start_child(self, call: ToolCall, new: NewRun) -> Effect:
        """Start a child of this run and wait for it, or find out how it ended.

        Raises:
            LeaseLost: another attempt owns the run; no child was started.
            KeyConflict: its key is another run's.
        """
        boundaries.reached("child:before", call.tool_name)
        effect = await self._writes.write(children.begin, self._claim, call, new)
        boundaries.reached("child:after", call.tool_name)
        return self._known.put(effect)

    async def commit(self, transaction: ToolTransaction, outcome: CallOutcome) -> None:
        """Make the outcome of a call durable together with what its tool wrote.

        Raises:
            LeaseLost: another attempt owns the run; neither was committed.
            LedgerUnavailable: neither was committed.
        """
        self._told(outcome, await self._writes.commit(transaction, outcome))

    async def doubt(self, outcome: CallOutcome) -> Effect | None:
        """Make it durable that a call is asked about, or that the model was told of it.

        Returns:
            What the ledger holds: somebody else's word where that came first; None if the call
            was withdrawn meanwhile, because it certainly did not happen.
        """
        boundaries.reached("outcome:before", outcome.call.tool_name)
        effect = await self._writes.write(steps.record_doubt, self._claim, outcome)
        boundaries.reached("outcome:after", outcome.call.tool_name)
        if effect is None:
            self._known.forget(outcome.call.position)
        else:
            self._known.put(effect)
        return effect

    async def withdraw(self, call: ToolCall, reason: str) -> None:
        """Forget an intent: the call certainly did not happen."""
        withdrawn = False
        with contextlib.suppress(LeaseLost):
            withdrawn = await self._writes.write(
                evidence.withdraw_intent, self._claim, call, reason
            )
        if not withdrawn:
            # The run is not this attempt's any more: nobody need be asked about the call.
            await self._writes.write_late(evidence.withdraw_late, self._claim, call, reason)
        self._known.forget(call.position)

    async def settle_late(self, outcome: CallOutcome) -> Effect | None:
        """Report how a call ended to a run that is not this attempt's any more.

        However long the database is away: that may be why the run was lost.
        """
        return await self._writes.write_late(evidence.settle_late, self._claim, outcome)
