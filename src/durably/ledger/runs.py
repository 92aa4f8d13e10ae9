"""Runs as an application makes them, and as people move them by hand: one short operation each.

Owns what else belongs to such a transition, named as in `durably.lifecycle`: its event, in the same
transaction. How an attempt at a run begins and ends is in `durably.ledger.attempts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import batched

from durably.errors import RunNotFound
from durably.ledger import notices
from durably.ledger.fence import record_event
from durably.ledger.operations import (
    Operation,
    Row,
    Statement,
    execute,
    fetch,
    fetch_one,
)
from durably.ledger.rows import run_from
from durably.ledger.threads import FIRST, place, place_again
from durably.ledger.waking import dispatch
from durably.lifecycle import RunState, refuse
from durably.records import Claim, NewRun, RunRecord

AT_ONCE = 1000
"""How many runs one statement inserts."""


def insert(
    new: NewRun, job_id: int | None = None, *, alone: bool = False
) -> Operation[tuple[RunRecord, bool]]:
    """Insert a run, or find the one that its key (or its recent twin) already names.

    Args:
        job_id: a job that is here already to wake it, if it is due at once.
        alone: that nothing else is written with it.

    Returns:
        The run, and True if this call made it.

    Raises:
        ThreadBusy: a run of its thread is going, and it was not to wait.
    """
    if new.unique_seconds is not None:
        yield from execute("lock_fingerprint", fingerprint=new.fingerprint)
        twin = yield from fetch_one(
            "find_recent_run", fingerprint=new.fingerprint, seconds=new.unique_seconds
        )
        if twin is not None:
            return run_from(twin), False
    standing = yield from place(new)
    given: dict[str, object] = {
        "key": new.key,
        "agent": new.agent,
        "queue": new.queue,
        "priority": new.priority,
        "max_attempts": new.max_attempts,
        "tags": new.tags,
        "meta": new.meta,
        "fingerprint": new.fingerprint,
        "thread": new.thread,
        "parent_id": new.parent_id,
        "tells_end": new.thread is not None or new.parent_id is not None,
        "budget": new.budget,
        "stream": new.stream,
        "scheduled_at": new.scheduled_at,
        "delay_seconds": new.delay_seconds,
        **standing.params,
    }
    line = {} if new.thread is None else {"thread": new.thread, **(standing.on or {})}
    event = {"agent": new.agent, "queue": new.queue, **line}

    def in_parts() -> Operation[Sequence[Row]]:
        row = yield from fetch_one("insert_run", **given)
        if row is None:
            return ()
        yield from execute("insert_input", run_id=row["id"], prompt=new.prompt, args=new.args)
        yield from record_event(Claim(row["id"], row["attempt"], ""), "enqueued", **event)
        return [row]

    more = {"prompt": new.prompt, "args": new.args, "event": json.dumps(event), "job_id": job_id}
    # Made again, it finds the key.
    rows = yield Statement(
        "enqueue_run", given | more, alone=alone, repeatable=True, instead=in_parts
    )
    if not rows:
        return run_from((yield from _row_of(new.key))), False
    return run_from(rows[0]), True


def insert_many(alike: NewRun, asked: Mapping[str, str]) -> Operation[dict[str, RunRecord]]:
    """Insert runs that differ by their keys and prompts alone; those whose key there is are not.

    Args:
        alike: what they have in common, without a thread, a parent or a twin.
        asked: the prompt of each, as JSON, by its key.

    Returns:
        The runs that this call made, by key.
    """
    made: dict[str, RunRecord] = {}
    for keys in batched(asked, AT_ONCE):
        rows = yield from fetch(
            "insert_runs",
            keys=json.dumps(keys),
            agent=alike.agent,
            queue=alike.queue,
            priority=alike.priority,
            max_attempts=alike.max_attempts,
            tags=alike.tags,
            meta=alike.meta,
            budget=alike.budget,
            stream=alike.stream,
            scheduled_at=alike.scheduled_at,
            delay_seconds=alike.delay_seconds,
        )
        new = [run_from(row) for row in rows]
        ids = json.dumps([run.id for run in new])
        inputs = json.dumps([[run.id, asked[run.key]] for run in new])
        yield from execute("insert_inputs", inputs=inputs, args=alike.args)
        yield from execute("insert_enqueued_events", ids=ids)
        yield from execute("insert_jobs", ids=ids)
        made |= {run.key: run for run in new}
    return made


def cancel(key: str, by: str) -> Operation[RunRecord]:
    """Cancel a run; an executing one is asked to stop.

    Raises:
        RunNotFound: no run has the key.
        TransitionRefused: it is final already.
    """
    run = yield from _by_hand("cancel", "cancel_run", key)
    kind = "cancel_requested" if run.state is RunState.EXECUTING else "cancelled"
    yield from record_event(run.claim, kind, by=by)
    yield from execute("cancel_job", run_id=run.id)
    return run


def wake(key: str, by: str) -> Operation[RunRecord]:
    """Make a suspended run available.

    Raises:
        RunNotFound: no run has the key.
        TransitionRefused: it is not suspended.
    """
    run = yield from _by_hand("wake", "wake_run", key)
    yield from record_event(run.claim, "woken", by=by)
    yield from dispatch(run)
    return run


def revive(key: str, by: str) -> Operation[RunRecord]:
    """An operator's retry of a discarded or cancelled run; its history is kept.

    Raises:
        RunNotFound: no run has the key.
        TransitionRefused: it is neither discarded nor cancelled, or its thread has gone on.
    """
    run = yield from revive_quietly(key, by)
    yield from notices.forget(run.id)
    yield from dispatch(run)
    return run


def revive_quietly(key: str, by: str) -> Operation[RunRecord]:
    """`revive` for whoever claims the run at once, if it need not wait for its thread."""
    known = run_from((yield from _row_of(key)))
    standing = FIRST if not known.state.final else (yield from place_again(known))
    run = yield from _by_hand("revive", "revive_run", key, **standing.params)
    yield from record_event(run.claim, "revived", by=by, **(standing.on or {}))
    return run


def prune(older_than_seconds: float, state: str | None, limit: int) -> Operation[int]:
    """Delete final runs that ended longer ago; returns how many."""
    return (
        yield from execute(
            "prune_runs", older_than_seconds=older_than_seconds, state=state, limit=limit
        )
    )


def _by_hand(transition: str, statement: str, key: str, **params: object) -> Operation[RunRecord]:
    """An operator's transition: the updated run, or a refusal that says what would be allowed."""
    row = yield from fetch_one(statement, key=key, **params)
    if row is None:
        current = run_from((yield from _row_of(key)))
        raise refuse(transition, key, current.state)
    return run_from(row)


def _row_of(key: str) -> Operation[Row]:
    row = yield from fetch_one("get_run", key=key)
    if row is None:
        raise RunNotFound(key)
    return row
