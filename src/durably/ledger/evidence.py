"""What an attempt says of a call afterwards: how it ended, or that it certainly did not happen.

Owns late evidence: it is taken from an attempt that has lost its run, as long as nobody else has
settled or repeated the call. Nothing else of the run is such an attempt's to change.
"""

from __future__ import annotations

from typing import Any

from durably.ledger.fence import record_event
from durably.ledger.operations import Operation, Row, brief, fetch, fetch_one
from durably.ledger.rows import effect_from, event_data
from durably.ledger.steps import effect_at
from durably.ledger.waking import wake_if_settled
from durably.ledger.written import CallOutcome, ToolCall
from durably.records import Claim, Effect


@brief
def withdraw_intent(claim: Claim, call: ToolCall, reason: str) -> Operation[bool]:
    """Forget an intent whose call certainly did not happen; False if it was not this attempt's."""
    return (yield from _withdraw("withdraw_intent", claim, call, reason=reason))


@brief
def settle_late(claim: Claim, outcome: CallOutcome) -> Operation[Effect | None]:
    """Late evidence: the attempt lost its run but its call did end, and says how.

    Settles the effect if it still is that attempt's and still open. Nothing else of the run is
    the late attempt's to change; but if the run waits for people and nothing is left to ask them,
    it goes on. None if somebody settled or repeated the call meanwhile.
    """
    position = outcome.call.position
    known = yield from fetch_one("lock_run", run_id=claim.run_id)
    row = yield from fetch_one(
        "settle_late",
        run_id=claim.run_id,
        attempt=claim.attempt,
        **position._asdict(),
        state=outcome.state,
        result=outcome.result,
        error=outcome.error,
    )
    if row is None:
        said = yield from _late_evidence(claim, position.call_id)
        if said is not None:
            return (yield from effect_at(claim, position)) if said.get("accepted") else None
    if known is not None:
        tool, accepted = outcome.call.tool_name, row is not None
        data: dict[str, object] = {"call_id": position.call_id, "accepted": accepted}
        yield from record_event(claim, "late_evidence", **{"tool": tool, **data})
    if row is None:
        return None
    yield from wake_if_settled(claim.run_id, by="late evidence")
    return effect_from(row)


def _late_evidence(claim: Claim, call_id: str) -> Operation[dict[str, Any] | None]:
    """What an attempt has said of a call already: nobody heard then whether it was committed."""
    rows = yield from fetch(
        "list_events_of_attempt", run_id=claim.run_id, attempt=claim.attempt, kind="late_evidence"
    )
    said: list[dict[str, Any]] = [event_data(row) for row in rows]
    return next((data for data in said if data.get("call_id") == call_id), None)


@brief
def withdraw_late(claim: Claim, call: ToolCall, reason: str) -> Operation[bool]:
    """Late evidence that nothing happened: the call was not started, and is as if never tried.

    Returns:
        False if somebody settled or repeated the call meanwhile, or the model was told of it.
    """
    return (yield from _withdraw("withdraw_late", claim, call, reason=reason, late=True))


def _withdraw(statement: str, claim: Claim, call: ToolCall, **why: object) -> Operation[bool]:
    position = call.position
    yield from fetch_one("lock_run", run_id=claim.run_id)
    row = yield from fetch_one(
        statement,
        run_id=claim.run_id,
        attempt=claim.attempt,
        **position._asdict(),
    )
    if row is None:
        row = yield from _return_approved(claim, call)
    if row is not None:
        data = {"call_id": position.call_id, "tool": call.tool_name, **why}
        yield from record_event(claim, "effect_withdrawn", **data)
        # An approval also returns to a run that is lost, and that may have come to wait for people.
        yield from wake_if_settled(claim.run_id, by="late evidence")
    return row is not None


def _return_approved(claim: Claim, call: ToolCall) -> Operation[Row | None]:
    """What `withdraw_intent` is for a call that was approved: the approval stays."""
    return (
        yield from fetch_one(
            "return_approved",
            run_id=claim.run_id,
            attempt=claim.attempt,
            **call.position._asdict(),
        )
    )
