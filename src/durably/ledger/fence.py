"""What every write of an attempt shares: the refusal of a late writer, and the event it leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import batched

from durably.errors import LeaseLost
from durably.ledger.operations import Operation, Row, execute, fetch_one
from durably.ledger.rows import run_from
from durably.records import Claim


def lease_lost(claim: Claim) -> Operation[LeaseLost]:
    """The error for a writer that is too late, telling both sides."""
    row = yield from fetch_one("get_run_by_id", run_id=claim.run_id)
    if row is None:
        return LeaseLost(f"The run of attempt {claim.attempt} no longer exists.")
    run = run_from(row)
    if run.attempt == claim.attempt:
        return LeaseLost(f"Run {run.key!r} is {run.state}; attempt {claim.attempt} is over.")
    return LeaseLost(
        f"Run {run.key!r} is owned by attempt {run.attempt}; this is attempt {claim.attempt}."
    )


def hold(claim: Claim) -> Operation[Row]:
    """Keep the run for this claim until the transaction ends; returns its usage and cost so far.

    Raises:
        LeaseLost: the claim is not the run's current one.
    """
    row = yield from fetch_one("hold_run", run_id=claim.run_id, attempt=claim.attempt)
    if row is None:
        raise (yield from lease_lost(claim))
    return row


def record_event(claim: Claim, kind: str, /, **data: object) -> Operation[None]:
    """Append a fact about the run."""
    yield from record_events(claim, [(kind, data)])


def record_events(claim: Claim, events: Sequence[tuple[str, dict[str, object]]]) -> Operation[None]:
    """Append facts about the run, in order; two at a time, since a step mostly has two."""
    about = {"run_id": claim.run_id, "attempt": claim.attempt}
    for (kind, data), *more in batched(events, 2):
        told = json.dumps(data)
        if not more:
            yield from execute("insert_event", **about, kind=kind, data=told)
        for other, known in more:
            both = {"kind_a": kind, "data_a": told, "kind_b": other, "data_b": json.dumps(known)}
            yield from execute("insert_two_events", **about, **both)
