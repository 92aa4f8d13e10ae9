"""What anybody may ask the ledger, without changing it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from durably.errors import ConfigError, RunNotFound
from durably.ledger.columns import moment, moment_in, timestamp
from durably.ledger.operations import Operation, Row, Statement, brief, fetch, fetch_one, one_alone
from durably.ledger.queues import list_settings
from durably.ledger.rows import (
    attempt_from,
    decision_from,
    effect_from,
    event_from,
    inbox_item_from,
    input_from,
    message_from,
    run_from,
    worker_from,
)
from durably.lifecycle import RunState
from durably.records import (
    NO_CALL,
    Attempt,
    CallPosition,
    Claim,
    Decision,
    DueRecord,
    Effect,
    Event,
    InboxItem,
    QueueRecord,
    QueueSetting,
    RunInput,
    RunRecord,
    StoredMessage,
    WorkerRecord,
)

EVERY_ONE = 2**62
"""As many as there are."""


@brief
def get_run(key: str, *, alone: bool = False) -> Operation[RunRecord]:
    """The run with this key.

    Args:
        alone: that nothing else is read with it.

    Raises:
        RunNotFound: there is none.
    """
    rows = yield Statement("get_run", {"key": key}, alone=alone)
    if not rows:
        raise RunNotFound(key)
    return run_from(rows[0])


class Standing(NamedTuple):
    """Where a run stands, in short."""

    state: RunState
    waiting_kind: str | None


@brief
def list_stopped(run_ids: Collection[int]) -> Operation[dict[int, Standing | None]]:
    """Of these runs, those that are over or suspended; None of one that is gone."""
    ids = json.dumps(list(run_ids))
    rows = yield Statement("list_stopped", {"ids": ids}, alone=True)
    return {
        int(row["id"]): None
        if row["state"] is None
        else Standing(RunState(row["state"]), row["waiting_kind"])
        for row in rows
    }


@brief
def get_input(run_id: int, *, alone: bool = False) -> Operation[RunInput]:
    """What a run was asked.

    Args:
        alone: that nothing else is read with it.

    Raises:
        RunNotFound: there is none.
    """
    rows = yield Statement("get_input", {"run_id": run_id}, alone=alone)
    row = rows[0] if rows else None
    if row is not None:
        return input_from(row)
    if (yield from fetch_one("get_run_by_id", run_id=run_id)) is None:
        raise RunNotFound(f"#{run_id}")
    return RunInput("null", {}, damage=("durably_inputs has no row of this run",))


def list_runs(
    state: str | None,
    agent: str | None,
    queue: str | None,
    tag: str | None,
    before: int | None,
    limit: int,
    thread: str | None = None,
) -> Operation[list[RunRecord]]:
    """Runs, newest first; ``before`` is the id that the last page ended with."""
    filters: dict[str, object] = {"state": state, "agent": agent, "queue": queue, "tag": tag}
    filters |= {"before": before, "limit": limit}
    if thread is None:
        rows = yield from fetch("list_runs", **filters)
    else:
        rows = yield from fetch("list_thread_runs", thread=thread, **filters)
    return [run_from(row) for row in rows]


def list_messages(run_id: int, after: int = -1) -> Operation[list[StoredMessage]]:
    """A run's history, in order; ``after`` is the position of the last message not wanted."""
    rows = yield from fetch("list_messages", run_id=run_id, after=after)
    return [message_from(row) for row in rows]


def list_last_messages(run_id: int, limit: int, before: int) -> Operation[list[StoredMessage]]:
    """The last of a run's messages ahead of a position, in order."""
    rows = yield from fetch("list_last_messages", run_id=run_id, before=before, limit=limit)
    return [message_from(row) for row in reversed(rows)]


def list_effects(run_id: int) -> Operation[list[Effect]]:
    """A run's effects, in the order of the calls."""
    rows = yield from fetch("list_effects", run_id=run_id)
    return [effect_from(row) for row in rows]


def list_attempts(run_id: int) -> Operation[list[Attempt]]:
    """A run's attempts, first to last."""
    rows = yield from fetch("list_attempts", run_id=run_id)
    return [attempt_from(row) for row in rows]


def get_attempt(claim: Claim) -> Operation[Attempt | None]:
    """The attempt of a claim; None if its run was pruned."""
    row = yield from fetch_one("get_attempt", run_id=claim.run_id, attempt=claim.attempt)
    return None if row is None else attempt_from(row)


def last_fingerprint(run_id: int, attempt: int) -> Operation[str | None]:
    """The agent's fingerprint as the last attempt before this one recorded it."""
    row = yield from fetch_one("last_fingerprint", run_id=run_id, attempt=attempt)
    return None if row is None else row["fingerprint"]


def list_events(
    run_id: int, after: int, limit: int, *, live: bool = True
) -> Operation[list[Event]]:
    """A run's events with ids above ``after``, in order.

    Args:
        live: False leaves deltas out.
    """
    statement = "list_events" if live else "list_facts"
    rows = yield from fetch(statement, run_id=run_id, after=after, limit=limit)
    return [event_from(row) for row in rows]


def look(
    key: str, after: int, limit: int, *, live: bool
) -> Operation[tuple[RunRecord, list[Event]]]:
    """A run and its events with ids above ``after``, at one moment; one small read for a watcher.

    Raises:
        RunNotFound: there is none.
    """
    run = yield from get_run(key)
    return run, (yield from list_events(run.id, after, limit, live=live))


def newest_end(run_id: int) -> Operation[int]:
    """The id of the event that ended the last message, or claimed or ended the run; 0: of none."""
    row = yield from fetch_one("newest_end", run_id=run_id)
    return 0 if row is None else row["id"]


class InboxPlace(NamedTuple):
    """Where a page of the inbox begins: after this."""

    since: str = "0001-01-01T00:00:00.000000Z"
    run_id: int = 0
    position: CallPosition = NO_CALL

    @classmethod
    def after(cls, cursor: str) -> InboxPlace:
        """After an item, by its cursor.

        Raises:
            ConfigError: it is none.
        """
        try:
            since, run_id, call_id = cursor.split("|", 2)
            at = timestamp(datetime.fromisoformat(since))
            return cls(at, int(run_id), CallPosition.from_id(call_id))
        except ValueError:
            why = f"{cursor!r} is no place in the inbox: see `cursor` of its items."
            raise ConfigError(why) from None


def list_inbox(
    agent: str | None = None,
    queue: str | None = None,
    tag: str | None = None,
    kind: str | None = None,
    after: InboxPlace | None = None,
    limit: int | None = None,
) -> Operation[list[InboxItem]]:
    """All that suspended runs wait for people for, effects and budgets, oldest first."""
    after, limit = after or InboxPlace(), EVERY_ONE if limit is None else limit
    filters: dict[str, object] = {"agent": agent, "queue": queue, "tag": tag, "limit": limit}
    filters |= {"since": after.since, "run_id": after.run_id}
    found: list[tuple[Row, Effect | None]] = []
    if kind in (None, "budget"):
        rows = yield from fetch("list_budget_inbox", **filters)
        found += [(row, None) for row in rows]
    if kind != "budget":
        rows = yield from fetch("list_inbox", kind=kind, **filters, **after.position._asdict())
        found += [(row, effect_from(row)) for row in rows]
    found.sort(key=_inbox_order)
    paths: dict[int, list[str]] = {}
    items: list[InboxItem] = []
    for row, effect in found[:limit]:
        parent: int | None = row["parent_id"]
        if parent is not None and parent not in paths:
            paths[parent] = yield from path_to(parent)
        above = [] if parent is None else paths[parent]
        items.append(inbox_item_from(row, effect, [*above, row["run_key"]]))
    return items


def _inbox_order(found: tuple[Row, Effect | None]) -> tuple[datetime, int]:
    """What came from one statement is in order already, also within a run."""
    row, effect = found
    since = moment(row["since"]) if effect is None else effect.asked_at or effect.started_at
    return since, row["run_id"]


def path_to(run_id: int | None) -> Operation[list[str]]:
    """The keys of the runs from the outermost down to this one."""
    path: list[str] = []
    while run_id is not None:
        row = yield from fetch_one("get_run_by_id", run_id=run_id)
        if row is None:
            break
        path.insert(0, row["key"])
        run_id = row["parent_id"]
    return path


def list_decisions(run_id: int) -> Operation[list[Decision]]:
    """What was decided about a run's calls, first to last."""
    rows = yield from fetch("list_decisions", run_id=run_id)
    return [decision_from(row) for row in rows]


def list_workers() -> Operation[list[WorkerRecord]]:
    """Workers that registered and were not forgotten yet, with their load."""
    rows = yield from fetch("list_workers")
    return [worker_from(row) for row in rows]


def list_queues(open_only: bool = False) -> Operation[list[QueueRecord]]:
    """Every queue that has runs, or a live worker, or that was paused or scaled.

    Args:
        open_only: count no runs that are over, and look at none.
    """
    counts: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in (yield from fetch("count_open_runs" if open_only else "count_runs")):
        counts[row["queue"]][row["state"]] = row["runs"]
    served: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for worker in (yield from list_workers()):
        for queue, limit in worker.queues.items() if worker.alive else ():
            served[queue][worker.id] = limit
    decided = yield from list_settings()
    found: list[QueueRecord] = []
    for queue in sorted(counts.keys() | served.keys() | decided.keys()):
        setting = decided.get(queue, QueueSetting(queue))
        paused, limit = setting.paused, setting.limit
        found.append(QueueRecord(queue, counts[queue], paused, limit, served[queue]))
    return found


def list_due() -> Operation[list[DueRecord]]:
    """Every queue with runs that could be claimed now."""
    rows = yield from fetch("count_due")
    return [DueRecord(row["queue"], row["runs"], moment(row["since"])) for row in rows]


def count_prunable(older_than_seconds: float, state: str | None) -> Operation[int]:
    """How many runs `runs.prune` would delete."""
    row = yield from fetch_one("count_prunable", older_than_seconds=older_than_seconds, state=state)
    return 0 if row is None else row["runs"]


@brief
def next_due(queue: str) -> Operation[tuple[datetime | None, datetime]]:
    """When the next run of a queue can be claimed, and the time now.

    None if there is no run, or while the queue is paused.
    """
    row = yield from one_alone("next_due", queue=queue)
    assert row is not None, "a SELECT of expressions always has a row"
    return _due(row["at"], row["now"]), moment(row["now"])


def _due(at: object, now: object) -> datetime | None:
    """When the next run can be claimed. A time that cannot be read is compared as SQL does it."""
    found = None if at is None else moment_in(at)
    if at is None or found is not None:
        return found
    return moment(now) if str(at) <= str(now) else None
