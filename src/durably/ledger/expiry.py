"""Times that are over: of waits, and of what people were asked.

Owns finding them; what happens then is `waits`' and `decisions`'.
"""

from __future__ import annotations

from durably.ledger import decisions, waits
from durably.ledger.operations import Operation, execute, fetch, fetch_one
from durably.ledger.rows import effect_from, run_from
from durably.lifecycle import EffectState
from durably.records import CallPosition, Effect


def list_expired(limit: int = 100) -> Operation[list[tuple[str, str]]]:
    """Calls whose time is over, as run keys and call ids, the longest overdue first; a read."""
    return [
        (row["run_key"], CallPosition(row["response"], row["call"], row["step"]).call_id)
        for row in (yield from fetch("list_expired", limit=limit))
    ]


def expire(key: str, call_id: str) -> Operation[Effect | None]:
    """Do what is to be done now that the time of a call is over.

    Returns:
        The call; None if nothing was to be done any more.
    """
    row = yield from fetch_one("get_run_to_decide", key=key)
    if row is None:
        return None
    run, position = run_from(row), CallPosition.from_id(call_id)._asdict()
    found = yield from fetch_one("get_wait", run_id=run.id, **position)
    if found is None or not found["due"]:
        return None
    effect = effect_from(found)
    if run.state.final or effect.state is not EffectState.AWAITING:
        # Nobody need look at it again. If the run is revived, a wait knows that it was over.
        yield from execute("stop_expiry", run_id=run.id, **position)
        return None
    if effect.of_wait:
        return (yield from waits.time_out(effect))
    return (yield from decisions.expire(key, call_id))
