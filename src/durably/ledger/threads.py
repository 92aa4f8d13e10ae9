"""Threads: who waits in line, whose turn it is, what earlier runs left, and messages that steer.

Owns the rule that of a thread's open runs only the first, by id, goes on. Who is told of an end,
and when, is `execution.threads`'s.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

from durably.errors import ThreadBusy, TransitionRefused
from durably.ledger.columns import moment
from durably.ledger.fence import record_event
from durably.ledger.operations import Operation, execute, fetch, fetch_one
from durably.ledger.rows import effect_from, message_from, run_from
from durably.ledger.waking import dispatch
from durably.lifecycle import RunState
from durably.records import (
    Claim,
    EarlierRun,
    Effect,
    NewRun,
    RunRecord,
    Steer,
    StoredMessage,
)

LAST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its thread's line a run stands.

    Attributes:
        kind: how it waits; None: it is first, and goes on.
        on: what it waits for.
    """

    kind: str | None = None
    on: dict[str, str] | None = None

    @property
    def params(self) -> dict[str, object]:
        """For the statement that puts the run there."""
        on = None if self.on is None else json.dumps(self.on)
        return {"waiting_kind": self.kind, "waiting_on": on}


FIRST = Place()
"""Of a run that waits for no other."""

_WAITS = {"queue": "thread", "interrupt": "interrupt", "steer": "steer"}


def place(new: NewRun) -> Operation[Place]:
    """Where a new run comes to stand; holds its thread until the transaction ends.

    Raises:
        ThreadBusy: a run is going, and the new one is not to wait.
    """
    if new.thread is None:
        return FIRST
    yield from execute("lock_thread", thread=new.thread)
    first = yield from fetch_one("first_in_line", thread=new.thread)
    if first is None:
        return FIRST
    if new.on_busy == "reject":
        if (yield from fetch_one("get_run", key=new.key)) is not None:
            return FIRST  # An existing key finds its run, whoever is going.
        raise ThreadBusy(new.thread, first["key"], first["state"])
    # PostgreSQL looks again, and the end of a run does not hold the thread: by now the first may be
    # over, and nobody left. Then the new one waits for that: its `release` is yet to come.
    last = yield from fetch_one("last_in_line", thread=new.thread, before=LAST_ID)
    on = {"after": (last or first)["key"]}
    if new.on_busy == "interrupt":
        on["interrupts"] = first["key"]
    return Place(_WAITS[new.on_busy], on)


def place_again(run: RunRecord) -> Operation[Place]:
    """Where a run that is revived comes to stand.

    Raises:
        TransitionRefused: the conversation has gone on without it.
    """
    if run.thread is None:
        return FIRST
    yield from execute("lock_thread", thread=run.thread)
    follower = yield from fetch_one("find_follower", thread=run.thread, run_id=run.id)
    if follower is not None:
        raise TransitionRefused(
            f"Thread {run.thread!r} has gone on: run {follower['key']!r} came after {run.key!r}. "
            "Enqueue a new message instead."
        )
    last = yield from fetch_one("last_in_line", thread=run.thread, before=run.id)
    return FIRST if last is None else Place("thread", {"after": last["key"]})


def hold_thread(key: str) -> Operation[None]:
    """Hold the thread of a run until the transaction ends; does nothing if it has none."""
    row = yield from fetch_one("get_run", key=key)
    if row is not None and row["thread"] is not None:
        yield from execute("lock_thread", thread=row["thread"])


def release(thread: str) -> Operation[bool]:
    """After an end in the thread: one message that steered the ended run ends with it, or else
    whoever is first in line goes on.

    Returns:
        True if there may be more to do. Each call is about one run.
    """
    yield from execute("lock_thread", thread=thread)
    shared = yield from fetch_one("find_shared_end", thread=thread)
    if shared is not None:
        yield from share(shared["steer_id"], run_from(shared))
        return True
    row = yield from fetch_one("release_run", thread=thread)
    if row is not None:
        run = run_from(row)
        yield from record_event(run.claim, "woken", by="thread")
        yield from dispatch(run)
    return False


def share(run_id: int, ended: RunRecord) -> Operation[RunRecord | None]:
    """End a run that steered another as that one ended; None if it has ended otherwise."""
    error = None
    if ended.state is RunState.DISCARDED:
        error = f"Run {ended.key!r}, which it steered, was discarded: {ended.error}"
    row = yield from fetch_one(
        "share_end", run_id=run_id, state=ended.state, output=ended.output, error=error
    )
    if row is None:
        return None
    run = run_from(row)
    data = {"error": error} if error else {}
    yield from record_event(run.claim, str(run.state), with_run=ended.key, **data)
    return run


# --- messages that steer


def list_steers(thread: str, run_id: int) -> Operation[list[Steer]]:
    """Messages for this run that it has not seen, in order; a read."""
    rows = yield from fetch("list_steers", thread=thread, run_id=run_id)
    return [Steer(row["id"], row["key"], row["prompt"]) for row in rows]


def take_steer(claim: Claim, steer: Steer) -> Operation[None]:
    """The model of this run has seen the message, with what is written now.

    Locks the message's run after this one, which is earlier. Nobody locks two the other way round.
    """
    own = yield from fetch_one("get_run_by_id", run_id=claim.run_id)
    assert own is not None, "its row is held"
    key = own["key"]
    row = yield from fetch_one(
        "take_steer", run_id=steer.run_id, waiting_on=json.dumps({"steers": key})
    )
    if row is not None:
        yield from record_event(run_from(row).claim, "taken", by=key)
    yield from record_event(claim, "steered", by=steer.key)


# --- interruptions


def list_interrupts(limit: int = 100) -> Operation[list[RunRecord]]:
    """Runs for which another has yet to be cancelled; a read."""
    return [run_from(row) for row in (yield from fetch("list_interrupts", limit=limit))]


def interrupted(run_id: int) -> Operation[None]:
    """The run that was going is cancelled, or asked to stop: from now on this one just waits."""
    yield from execute("interrupted", run_id=run_id)


# --- what earlier runs left


def list_earlier(thread: str, before: int = LAST_ID) -> Operation[list[EarlierRun]]:
    """What the runs of a thread before this id left, in order; a read."""
    messages: defaultdict[int, list[StoredMessage]] = defaultdict(list)
    for row in (yield from fetch("list_earlier_messages", thread=thread, before=before)):
        messages[row["run_id"]].append(message_from(row))
    effects: defaultdict[int, list[Effect]] = defaultdict(list)
    for row in (yield from fetch("list_last_effects", thread=thread, before=before)):
        effects[row["run_id"]].append(effect_from(row))
    unanswered = yield from fetch("list_unanswered_prompts", thread=thread, before=before)
    prompts: dict[int, str] = {row["id"]: row["prompt"] for row in unanswered}
    runs = yield from fetch("list_earlier_runs", thread=thread, before=before)
    return [
        EarlierRun(
            key=row["key"],
            state=RunState(row["state"]),
            inserted_at=moment(row["inserted_at"]),
            messages=messages[row["id"]],
            effects=effects[row["id"]],
            prompt=prompts.get(row["id"]),
        )
        for row in runs
    ]
