"""Deltas: pieces of messages in the making, events that go when their message comes.

Owns when they are written and when they go; what they say is the agents'.
"""

from __future__ import annotations

from durably.ledger.fence import hold, record_event
from durably.ledger.operations import Operation, brief, execute, fetch_one, progress
from durably.ledger.rows import event_data
from durably.records import Claim


@brief
@progress
def write(claim: Claim, message: int, data: str, last: int) -> Operation[int]:
    """Append a delta, unless the message that it forms is there; the same may come twice.

    Args:
        message: the position of the message.
        data: the event's data as JSON.
        last: the id of the newest delta that the attempt knows to be there; 0: of none.

    Returns:
        The id of the newest delta now; ``last`` if there is none.

    Raises:
        LeaseLost: another attempt owns the run.
    """
    yield from hold(claim)
    row = yield from fetch_one(
        "insert_delta",
        run_id=claim.run_id,
        attempt=claim.attempt,
        message=message,
        data=data,
        last=last,
    )
    if row is None:
        # Its message has come; or it was committed before, and nobody heard of it.
        row = yield from fetch_one("newest_delta", run_id=claim.run_id)
    return last if row is None or row["id"] is None else row["id"]


def drop(claim: Claim) -> Operation[None]:
    """The messages that a run's deltas formed have come, or its output has; in their write."""
    yield from execute("drop_deltas", run_id=claim.run_id, after=0)


@progress
def withdraw(claim: Claim, after: int = 0) -> Operation[None]:
    """Take back what was shown of messages that will not come; in the write that says so.

    Args:
        after: the id of the last delta that stays.
    """
    row = yield from fetch_one("first_delta", run_id=claim.run_id, after=after)
    if row is not None:
        yield from execute("drop_deltas", run_id=claim.run_id, after=after)
        yield from record_event(claim, "withdrawn", message=event_data(row).get("message"))


@brief
@progress
def ask_again(claim: Claim, after: int) -> Operation[None]:
    """The model is asked again in the middle of a message: what was shown of it is taken back.

    Raises:
        LeaseLost: another attempt owns the run.
    """
    yield from hold(claim)
    yield from withdraw(claim, after)
