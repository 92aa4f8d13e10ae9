"""What must hold of waits, children, people and budgets after a soak, and what must not be left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from crash.databases import SqliteFile, WorldDatabase, instant
from durably.budgets import FROM_CHILDREN
from soak.evidence import Evidence, RunEvidence
from soak.workload import SLEEP_SECONDS, child_of

JOBS = """
SELECT id, state, args FROM oban_jobs WHERE state NOT IN ('completed', 'discarded', 'cancelled')
"""
LOCKS = "SELECT pid, mode FROM pg_locks WHERE locktype = 'advisory'"


def waits_are_over_once(evidence: Evidence) -> Iterator[str]:
    """No timer rings early, and a signal that was sent is taken once, in its order."""
    for run in evidence.runs.values():
        for effect in run.effects:
            if effect["ask"] == "timer" and effect["state"] == "done":
                slept = instant(effect["finished_at"]) - instant(effect["started_at"])
                if slept.total_seconds() < SLEEP_SECONDS:
                    yield f"The timer {effect['idempotency_key']} rang after {slept}."
        if run.scenario == "listen":
            ids = [signal["signal_id"] for signal in run.signals]
            taken = [signal["taken_step"] for signal in run.signals]
            if ids != ["first", "second"] or len(ids) < evidence.signalled[run.key]:
                yield f"Run {run.key} was sent the signals {ids}."
            if taken != ["signal part", "signal part #2"]:
                yield f"The signals of run {run.key} were taken by {taken}."


def children_exist_once(evidence: Evidence) -> Iterator[str]:
    """A run that a tool starts exists once, and has ended before its parent."""
    parents = {run.row["id"]: run for run in evidence.runs.values()}
    for run in evidence.runs.values():
        if run.row["parent_id"] is not None and (
            child_of(parents[run.row["parent_id"]].key) != run.key
        ):
            yield f"Run {run.key} is a child of run {parents[run.row['parent_id']].key}."
        if run.scenario == "delegate":
            child = evidence.runs.get(child_of(run.key))
            if child is None or child.row["parent_id"] != run.row["id"]:
                yield f"Run {run.key} has no child."
            elif instant(child.row["finished_at"]) > instant(run.row["finished_at"]):
                yield f"Run {run.key} ended before its child."


def people_decide_once(evidence: Evidence) -> Iterator[str]:
    """What was approved, denied or answered was so once; nothing that waits for it acts before."""
    for run in evidence.runs.values():
        decided = Counter(
            (row["response"], row["call"], row["step"])
            for row in run.decisions
            if row["decision"] in ("approved", "denied", "answered")
        )
        if any(times > 1 for times in decided.values()):
            yield f"Of run {run.key} a call was decided about more than once."
        for effect in run.effects:
            if effect["tool_name"] in ("pay", "ask_person") and run.completed:
                place = effect["response"], effect["call"], effect["step"]
                if decided[place] != 1:
                    yield f"Call {effect['idempotency_key']} is {effect['state']}, undecided."


def budgets_are_the_sum(evidence: Evidence) -> Iterator[str]:
    """What runs have spent together is what each of them has spent, and that is what it paid."""
    (budget,) = evidence.budgets
    own = {run.key: _own_usage(run) for run in evidence.runs.values()}
    for run in evidence.runs.values():
        requests, paid = own[run.key]["requests"], len(run.deeds.paid)
        # A response that came and could not be saved before the attempt was ended is counted.
        if not (run.was_steered or len(run.responses) <= requests <= paid):
            yield (
                f"Run {run.key} counts {requests} requests; it has {len(run.responses)} responses, "
                f"and {paid} were paid."
            )
    sums = {
        "spent_requests": sum(usage["requests"] for usage in own.values()),
        "spent_tool_calls": sum(usage["tool_calls"] for usage in own.values()),
        "spent_tokens": sum(run.row["tokens"] for run in evidence.runs.values()),
        "spent_nanousd": sum(run.row["own_nanousd"] for run in evidence.runs.values()),
    }
    for what, amount in sums.items():
        if budget[what] != amount:
            yield f"The budget says {what} {budget[what]}; the runs say {amount}."


def _own_usage(run: RunEvidence) -> dict[str, int]:
    """What a run has spent itself: its row counts its children's share too, and says how much."""
    usage = json.loads(run.row["usage"])
    children = usage.get(FROM_CHILDREN, {})
    return {what: usage.get(what, 0) - children.get(what, 0) for what in ("requests", "tool_calls")}


def nothing_is_left(evidence: Evidence, database: WorldDatabase) -> Iterator[str]:
    """No run is held, no worker alive, no lock taken, no half transaction there."""
    now = datetime.now(UTC)
    for worker in evidence.workers:
        if instant(worker["expires_at"]) > now:
            yield f"Worker {worker['id']} has a lease until {worker['expires_at']}."
    for run in evidence.runs.values():
        if run.row["worker_id"] or run.row["tells_end"]:
            yield f"Run {run.key} is held, or has not told its end."
    if torn := sum(key.startswith("torn") for key in evidence.booked):
        yield f"{torn} rows are there of a transaction that was never committed."
    if isinstance(database, SqliteFile):
        if database.is_locked():
            yield "Somebody has the write lock."
        for check in ("integrity_check", "foreign_key_check"):
            said = [tuple(row.values()) for row in database.rows(f"PRAGMA {check}")]
            if said not in ([], [("ok",)]):
                yield f"PRAGMA {check} says {said}."
        return
    try:
        # Of sessions this tells: looked for later, one that has just looked here might be found.
        database.wait_until_left()
    except AssertionError as error:
        yield f"{error}."
    for what, sql in (("job", JOBS), ("lock", LOCKS)):
        if left := database.rows(sql):
            yield f"{len(left)} of kind {what} are left, such as {left[0]}."
