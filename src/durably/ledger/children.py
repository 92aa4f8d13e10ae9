"""Runs that another run's tool started: the wait for them, and what each learns of the other's end.

Owns that a child is started once and that its end reaches its parent; when that is told is
`execution.ends`'s.
"""

from __future__ import annotations

import json

from durably.errors import KeyConflict
from durably.ledger import runs, waits
from durably.ledger.columns import decoded
from durably.ledger.fence import hold, record_event
from durably.ledger.operations import Operation, brief, execute, fetch, fetch_one
from durably.ledger.rows import effect_from, run_from
from durably.ledger.waits import Wait
from durably.ledger.written import ToolCall
from durably.lifecycle import EffectState, RunState
from durably.records import Claim, Effect, NewRun, RunRecord

BY_PARENT = "parent"
"""Who is said to have cancelled or revived a run because its parent was."""


@brief
def begin(claim: Claim, call: ToolCall, new: NewRun) -> Operation[Effect]:
    """Start a child and wait for it, or find out how it ended; a stale attempt starts none.

    Raises:
        KeyConflict: a run with this key is there, and is no child of this run.
    """
    yield from hold(claim)
    row = yield from fetch_one("get_effect", run_id=claim.run_id, **call.position._asdict())
    if row is not None and row["state"] != EffectState.AWAITING:
        return effect_from(row)
    key = new.key if row is None else effect_from(row).awaits or new.key
    existing = yield from fetch_one("get_run", key=key)
    if existing is None:
        child, _ = yield from runs.insert(new)
        yield from execute("expect_ends", run_id=claim.run_id)
        yield from record_event(claim, "child", key=child.key, call_id=call.position.call_id)
    else:
        child = run_from(existing)
    if child.parent_id != claim.run_id:
        raise KeyConflict(
            f"The key {key!r} belongs to a run that is no child of this one; give run_child() "
            "another key."
        )
    # The call that started it counts what it uses; another that waits for it as well does not.
    request = json.dumps({"started": existing is None})
    effect = yield from waits.insert(claim, call, Wait("child", key, request=request))
    if effect.state is EffectState.AWAITING and child.state.final:
        return (yield from _settle(effect, child)) or effect
    return effect


def tell_parent(child_id: int) -> Operation[RunRecord | None]:
    """Let a parent know how its child ended, and go on; None if nobody waits for it.

    One that was cancelled because its parent ended is not told: if the parent is revived, so is it.
    """
    found = yield from fetch_one("get_run_by_id", run_id=child_id)
    if found is None:
        return None
    child = run_from(found)
    if child.parent_id is None or not child.state.final:
        return None
    yield from fetch_one("lock_run", run_id=child.parent_id)
    row = yield from fetch_one("get_run_by_id", run_id=child.parent_id)
    waiting = yield from fetch("find_child_waits", run_id=child.parent_id, awaits=child.key)
    if row is None or not waiting:
        return None
    parent = run_from(row)
    if parent.state.final and child.state is RunState.CANCELLED:
        return None
    for wait in waiting:
        yield from _settle(effect_from(wait), child)
    return parent


def list_open(run_id: int) -> Operation[list[RunRecord]]:
    """The children of a run that have not ended; a read."""
    return [run_from(row) for row in (yield from fetch("list_open_children", run_id=run_id))]


def list_all(run_id: int) -> Operation[list[RunRecord]]:
    """The children of a run, first to last; a read."""
    return [run_from(row) for row in (yield from fetch("list_children", run_id=run_id))]


def list_waited_for(run_id: int) -> Operation[list[RunRecord]]:
    """Children that were cancelled, and that their parent still waits for; a read."""
    found: list[RunRecord] = []
    for child in (yield from list_all(run_id)):
        wait = yield from fetch_one("find_wait", run_id=run_id, ask="child", awaits=child.key)
        if wait is not None and child.state is RunState.CANCELLED:
            found.append(child)
    return found


def _settle(effect: Effect, child: RunRecord) -> Operation[Effect | None]:
    completed, output, error = child.state is RunState.COMPLETED, None, child.error
    try:
        output = decoded(child.output)
    except ValueError as damage:
        completed, error = False, f"its output cannot be read: durably_runs.output is {damage}"
    said = {
        "key": child.key,
        "state": child.state,
        "usage": child.usage,
        "cost_nanousd": child.cost_nanousd,
        **({"output": output} if completed else {}),
        **({"error": error} if error else {}),
    }
    state = EffectState.DONE if completed else EffectState.FAILED
    result = json.dumps({"child": said})
    by = f"run {child.key}"
    return (yield from waits.settle(effect, state, result, by, None if completed else error))
