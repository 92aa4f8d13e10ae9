"""What people decide about single effects, and what that wakes.

Owns the write that counts a decision once; who may decide is the caller's business.
"""

from __future__ import annotations

from durably.errors import EffectNotFound, RunNotFound, TransitionRefused
from durably.ledger.fence import record_event
from durably.ledger.operations import Operation, Row, fetch, fetch_one
from durably.ledger.rows import effect_from, run_from
from durably.ledger.waking import wake_if_settled
from durably.lifecycle import EffectState
from durably.records import Effect, RunRecord


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
    row = yield from fetch_one("get_run_to_decide", key=key)
    if row is None:
        raise RunNotFound(key)
    run = run_from(row)
    if run.state.final:
        raise TransitionRefused(
            f"Run {key!r} is {run.state}; retry it first, then decide about its effects."
        )
    effect = yield from _find(run, call_id)
    if state is None and effect.state is EffectState.AWAITING:
        raise TransitionRefused(
            f"Effect {effect.call_id} of run {key!r} awaits an answer and has not run: refuse it "
            "with failed, or answer in its place with done."
        )
    settled = yield from _write(run, effect, state, result, error, by)
    if settled is None:
        raise TransitionRefused(
            f"Effect {effect.call_id} of run {key!r} is {effect.state}"
            + (f", settled by {effect.resolved_by}" if effect.resolved_by else "")
            + "; only one that is in_doubt or awaiting can be resolved."
        )
    yield from record_event(
        run.claim,
        "effect_resolved",
        call_id=effect.call_id,
        tool=effect.tool_name,
        decision="again" if state is None else state,
        by=by,
        note=note,
    )
    yield from wake_if_settled(run.id)
    current = yield from fetch_one("get_run", key=key)
    return run_from(current) if current is not None else run


def _write(
    run: RunRecord,
    effect: Effect,
    state: EffectState | None,
    result: str | None,
    error: str | None,
    by: str,
) -> Operation[Row | None]:
    position = effect.position
    where = {"run_id": run.id, "response": position.response, "call": position.call}
    if state is None:
        return (yield from fetch_one("forget_effect", **where))
    return (
        yield from fetch_one(
            "resolve_effect", **where, state=state, result=result, error=error, resolved_by=by
        )
    )


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
