"""What people decide about single calls, and what that wakes.

Owns the write that counts a decision once, and its row in the record; who may decide is the
caller's business.
"""

from __future__ import annotations

import json

from durably.errors import EffectNotFound, RunNotFound, TransitionRefused
from durably.ledger import notices
from durably.ledger.fence import record_event
from durably.ledger.operations import Operation, execute, fetch, fetch_one
from durably.ledger.rows import effect_from, run_from
from durably.ledger.waking import wake_if_settled
from durably.lifecycle import EffectState, RunState, allowed
from durably.records import WAIT_KINDS, Effect, RunRecord

_ENDS = {
    "timer": "its time has come",
    "signal": "the signal is sent, or its time is over",
    "child": "the run that it waits for has ended",
}


def resolve(
    key: str,
    call_id: str,
    state: EffectState | None,
    result: str | None,
    error: str | None,
    by: str,
    note: str,
) -> Operation[RunRecord]:
    """Settle an effect that is in doubt or awaiting; wakes the run when nothing is left open.

    Args:
        state: DONE, FAILED or DENIED; None to forget the call so that it runs again.
        call_id: the position such as ``3.0``, or a tool call id that is unique in the run.

    Raises:
        RunNotFound, EffectNotFound: nothing has this key, or this call id.
        TransitionRefused: the run is final, or the effect is settled or still being carried out.
    """
    run, effect = yield from _to_decide(key, call_id)
    if effect.ask in WAIT_KINDS:
        raise TransitionRefused(
            f"Effect {effect.call_id} of run {key!r} is a wait, which nobody decides about: it is "
            f"over when {_ENDS[effect.ask]}."
        )
    if state is None and effect.state is EffectState.AWAITING:
        raise TransitionRefused(
            f"Effect {effect.call_id} of run {key!r} awaits an answer and has not run: refuse it "
            "with failed, or answer in its place with done."
        )
    if state is None and effect.told:
        raise TransitionRefused(
            f"The model was told that the outcome of effect {effect.call_id} of run {key!r} is "
            "unknown, so that it cannot run again: say what became of it, with done or failed."
        )
    if state is None:
        settled = yield from fetch_one("forget_effect", **_where(effect))
        if settled is None:
            settled = yield from fetch_one("return_approved", **_where(effect), attempt=None)
    else:
        settled = yield from fetch_one(
            "resolve_effect",
            **_where(effect),
            state=state,
            result=result,
            error=error,
            resolved_by=by,
        )
    if settled is None:
        raise _refused(run, effect, "only one that is in_doubt or awaiting can be resolved")
    decision = "again" if state is None else str(state)
    yield from record_event(
        run.claim,
        "effect_resolved",
        call_id=effect.call_id,
        tool=effect.tool_name,
        decision=decision,
        by=by,
        note=note,
    )
    yield from _record(effect, "resolved", by, f"{decision}: {note}" if note else decision)
    return (yield from _go_on(run))


def approve(
    key: str, call_id: str, args: str | None, expected: str | None, by: str, note: str
) -> Operation[RunRecord]:
    """Let a call run that waits for approval.

    Args:
        args: other arguments for it, as JSON; None: those that the model gave.
        expected: the arguments as whoever decides has seen them; None: not compared.

    Raises:
        RunNotFound, EffectNotFound: nothing has this key, or this call id.
        TransitionRefused: it waits for no approval, or not with these arguments.
    """
    run, effect = yield from _to_decide(key, call_id)
    if expected is not None and effect.args != expected:
        raise TransitionRefused(
            f"The arguments of call {effect.call_id} of run {key!r} are {effect.args}, no longer "
            "those that the decision was about; look at them again."
        )
    row = yield from fetch_one(
        "approve_effect",
        **_where(effect),
        args=effect.args if args is None else args,
        resolved_by=by,
    )
    if row is None:
        raise _refused(run, effect, "it waits for no approval")
    return (yield from _decided(run, effect, "approved", by, note, effect_from(row).args))


def decide(
    key: str,
    call_id: str,
    decision: str,
    state: EffectState,
    result: str | None,
    error: str | None,
    by: str,
    note: str,
) -> Operation[RunRecord]:
    """Deny a call that waits for a person, answer in its place, or let its time be over.

    Args:
        decision: ``denied``, ``answered`` or ``expired``.
        result: what the model is given for it, as a recorded outcome.

    Raises:
        RunNotFound, EffectNotFound: nothing has this key, or this call id.
        TransitionRefused: it waits for nobody.
    """
    run, effect = yield from _to_decide(key, call_id)
    row = yield from fetch_one(
        "decide_effect", **_where(effect), state=state, result=result, error=error, resolved_by=by
    )
    if row is None:
        raise _refused(run, effect, "it waits for nobody")
    return (yield from _decided(run, effect, decision, by, note, None))


def find(key: str, call_id: str) -> Operation[Effect]:
    """A call of a run, by what people call it; a read.

    Raises:
        RunNotFound, EffectNotFound: nothing has this key, or this call id.
    """
    row = yield from fetch_one("get_run", key=key)
    if row is None:
        raise RunNotFound(key)
    return (yield from _find(run_from(row), call_id))


def denial(reason: str) -> str:
    """What the model is told of a call that somebody, or the clock, did not let run."""
    return json.dumps({"failed": reason})


ESCALATED = "escalated"
"""The tag of a run one of whose calls nobody has decided about in time."""

BY_CLOCK = "expiry"
"""Who is said to have decided what nobody did."""


def expire(key: str, call_id: str) -> Operation[Effect | None]:
    """Do what was declared for a call that nobody decided about in time; None if somebody has."""
    run, effect = yield from _to_decide(key, call_id)
    if effect.expires_at is None or not effect.asked or run.state is not RunState.SUSPENDED:
        return None
    if effect.on_expiry == "deny":
        reason = "Nobody approved this call in time."
        row = yield from fetch_one(
            "decide_effect",
            **_where(effect),
            state=EffectState.DENIED,
            result=denial(reason),
            error=None,
            resolved_by=BY_CLOCK,
        )
        assert row is not None, "it is asked, and the run is held"
        yield from _decided(run, effect, "expired", BY_CLOCK, reason, None)
        return effect
    yield from execute("stop_expiry", **_where(effect))
    decision = "expired"
    if effect.on_expiry == "escalate":
        decision = "escalated"
        tags = json.dumps(list(dict.fromkeys([*run.tags, ESCALATED])))
        yield from execute("escalate_run", run_id=run.id, tags=tags, queue=effect.escalate_queue)
        yield from notices.note_escalation(effect)
    yield from record_event(
        run.claim, decision, call_id=effect.call_id, tool=effect.tool_name, by=BY_CLOCK
    )
    yield from _record(effect, decision, BY_CLOCK, "Nobody decided in time; it goes on waiting.")
    return effect


def _decided(
    run: RunRecord, effect: Effect, decision: str, by: str, note: str, args_after: str | None
) -> Operation[RunRecord]:
    yield from record_event(
        run.claim, decision, call_id=effect.call_id, tool=effect.tool_name, by=by, note=note
    )
    yield from _record(effect, decision, by, note, args_after)
    return (yield from _go_on(run))


def _record(
    effect: Effect, decision: str, by: str, note: str, args_after: str | None = None
) -> Operation[None]:
    yield from execute(
        "insert_decision",
        **_where(effect),
        decision=decision,
        by=by,
        note=note,
        args_before=effect.args,
        args_after=args_after,
    )


def _go_on(run: RunRecord) -> Operation[RunRecord]:
    yield from wake_if_settled(run.id)
    current = yield from fetch_one("get_run", key=run.key)
    return run_from(current) if current is not None else run


def _to_decide(key: str, call_id: str) -> Operation[tuple[RunRecord, Effect]]:
    """The run, held until the decision is written, and the call."""
    row = yield from fetch_one("get_run_to_decide", key=key)
    if row is None:
        raise RunNotFound(key)
    run = run_from(row)
    if run.state.final:
        what = "retry it first, then decide about its effects"
        if not allowed("revive", run.state):
            what = "nothing of it is left to decide"
        raise TransitionRefused(f"Run {key!r} is {run.state}; {what}.")
    return run, (yield from _find(run, call_id))


def _refused(run: RunRecord, effect: Effect, why: str) -> TransitionRefused:
    now = "approved" if effect.approved and not effect.state.settled else str(effect.state)
    by = f", settled by {effect.resolved_by}" if effect.resolved_by else ""
    return TransitionRefused(f"Effect {effect.call_id} of run {run.key!r} is {now}{by}; {why}.")


def _where(effect: Effect) -> dict[str, object]:
    return {"run_id": effect.run_id, **effect.position._asdict()}


def _find(run: RunRecord, call_id: str) -> Operation[Effect]:
    rows = yield from fetch("list_effects", run_id=run.id)
    effects = [effect_from(row) for row in rows]
    exact = [e for e in effects if e.call_id == call_id]
    named = exact or [e for e in effects if e.tool_call_id == call_id]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(e.call_id for e in named)
        raise EffectNotFound(
            f"{call_id!r} names {len(named)} effects of run {run.key!r}; use one of: {ids}."
        )
    open_ids = [e.call_id for e in effects if not e.state.settled]
    hint = f" Open: {', '.join(open_ids)}." if open_ids else " None is open."
    raise EffectNotFound(f"Run {run.key!r} has no effect {call_id!r}.{hint}")
