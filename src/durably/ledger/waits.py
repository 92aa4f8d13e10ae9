"""What a tool's own code waits for that is no person: a time, or a signal.

Owns the row of a wait and the signals that were sent; waiting for another run is `children`'s, and
when a time is over is `expiry`'s to look.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from durably.errors import RunNotFound, TransitionRefused
from durably.ledger.actions import NewAction, record
from durably.ledger.fence import hold, record_event
from durably.ledger.operations import Operation, Row, brief, fetch, fetch_one
from durably.ledger.rows import effect_from, run_from, signal_from
from durably.ledger.steps import call_params
from durably.ledger.waking import wake_waiting
from durably.ledger.written import ToolCall
from durably.lifecycle import EffectState
from durably.records import CallPosition, Claim, Effect, RunRecord, Signal

BY_CLOCK = "time"
"""Who is said to have ended a wait that only time ended."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for.

    Attributes:
        kind: ``timer``, ``signal`` or ``child``.
        awaits: the signal's name, or the child's key.
        within_seconds: until when, counted from the first time that it is waited for.
        until: until when, as the ledger's own timestamp text; wins over the seconds.
        request: what people are shown of it, as JSON.
    """

    kind: str
    awaits: str | None = None
    within_seconds: float | None = None
    until: str | None = None
    request: str = "{}"


@brief
def begin(claim: Claim, call: ToolCall, wait: Wait) -> Operation[Effect]:
    """Wait for a time or a signal, or find out that it has come; a stale attempt waits for nothing.

    Returns:
        The wait as it is now: ``awaiting``, or over.
    """
    yield from hold(claim)
    row = yield from fetch_one("get_wait", run_id=claim.run_id, **call.position._asdict())
    if row is not None:
        return (yield from _as_it_is_now(row))
    signal = None
    if wait.kind == "signal":
        signal = yield from fetch_one(
            "take_signal", run_id=claim.run_id, name=wait.awaits, **call.position._asdict()
        )
    payload = None if signal is None else signal_from(signal).payload
    effect = yield from insert(
        claim,
        call,
        wait,
        state=EffectState.AWAITING if signal is None else EffectState.DONE,
        result=None if signal is None else _returned(payload),
        resolved_by=None if signal is None else signal["by"],
    )
    return effect


def insert(
    claim: Claim,
    call: ToolCall,
    wait: Wait,
    *,
    state: EffectState = EffectState.AWAITING,
    result: str | None = None,
    error: str | None = None,
    resolved_by: str | None = None,
) -> Operation[Effect]:
    """Record a wait of a run that is held; one that is there already stays as it is."""
    row = yield from fetch_one(
        "insert_wait",
        **call_params(claim, call),
        state=state,
        result=result,
        error=error,
        resolved_by=resolved_by,
        ask=wait.kind,
        request=wait.request,
        awaits=wait.awaits,
        until=wait.until,
        within_seconds=wait.within_seconds,
    )
    if row is None:
        row = yield from fetch_one("get_effect", run_id=claim.run_id, **call.position._asdict())
        assert row is not None, "of a run that is held, a wait is refused only by a wait"
        return effect_from(row)
    position = call.position
    yield from record_event(
        claim, "waits", call_id=position.call_id, tool=call.tool_name, on=wait.kind, state=state
    )
    return effect_from(row)


def settle(
    effect: Effect,
    state: EffectState,
    result: str,
    by: str,
    error: str | None = None,
) -> Operation[Effect | None]:
    """End a wait, and let the run go on if it is suspended; None if it was over already."""
    row = yield from fetch_one(
        "settle_wait",
        run_id=effect.run_id,
        **effect.position._asdict(),
        state=state,
        result=result,
        error=error,
        resolved_by=by,
    )
    if row is None:
        return None
    yield from wake_waiting(effect.run_id, by=by)
    return effect_from(row)


def time_out(effect: Effect) -> Operation[Effect | None]:
    """The time of a wait is over: a timer has rung, anything else has not come in time."""
    if effect.ask == "timer":
        return (yield from settle(effect, EffectState.DONE, _returned(None), BY_CLOCK))
    text = f"The signal {effect.awaits!r} did not come in time."
    result = json.dumps({"timeout": text})
    return (yield from settle(effect, EffectState.FAILED, result, BY_CLOCK))


def send_signal(
    key: str, name: str, payload: str, by: str, signal_id: str | None
) -> Operation[RunRecord]:
    """Give a signal to the run: to the oldest wait for it, or to one that is still to come.

    Args:
        payload: JSON.
        signal_id: the same signal sent again is recognised by it, and does nothing.

    Raises:
        RunNotFound: no run has the key.
        TransitionRefused: the run is over, and will wait for nothing.
    """
    row = yield from fetch_one("get_run_to_decide", key=key)
    if row is None:
        raise RunNotFound(key)
    run = run_from(row)
    if run.state.final:
        raise TransitionRefused(f"Run {key!r} is {run.state}: it waits for no signal any more.")
    sent = yield from fetch_one(
        "insert_signal", run_id=run.id, name=name, payload=payload, by=by, signal_id=signal_id
    )
    if sent is None:
        return run
    yield from record_event(run.claim, "signalled", name=name, by=by)
    yield from record(NewAction("signal", by, key, name, {"signal_id": signal_id}))
    waiting = yield from fetch_one("find_wait", run_id=run.id, ask="signal", awaits=name)
    if waiting is not None:
        effect = effect_from(waiting)
        taken = yield from fetch_one(
            "take_signal", run_id=run.id, name=name, **effect.position._asdict()
        )
        assert taken is not None, "it was sent in this transaction"
        result = _returned(signal_from(taken).payload)
        yield from settle(effect, EffectState.DONE, result, by)
    current = yield from fetch_one("get_run", key=key)
    return run if current is None else run_from(current)


def list_signals(run_id: int) -> Operation[list[Signal]]:
    """What was sent to a run, first to last; a read."""
    return [signal_from(row) for row in (yield from fetch("list_signals", run_id=run_id))]


def find(claim: Claim, position: CallPosition) -> Operation[Effect | None]:
    """A wait as it is; a read."""
    row = yield from fetch_one("get_effect", run_id=claim.run_id, **position._asdict())
    return None if row is None else effect_from(row)


def _as_it_is_now(row: Row) -> Operation[Effect]:
    """A wait that was begun before; its time may be over without anybody's having looked."""
    effect = effect_from(row)
    if effect.state is not EffectState.AWAITING:
        return effect
    # One that was over while its run was, too, has lost its time: see `expiry`.
    had_time = effect.ask == "timer" or "timeout" in effect.request
    if row["due"] or (had_time and effect.expires_at is None):
        return (yield from time_out(effect)) or effect
    return effect


def _returned(payload: object) -> str:
    """What the wait gives, as a recorded outcome (see ``agents.recorded``)."""
    return json.dumps({"return": {"return_value": payload}})
