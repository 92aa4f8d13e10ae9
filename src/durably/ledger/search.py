"""Search: which runs match, newest first, a bounded stretch of them at a time.

Owns which index leads through the runs; how long to go on is the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from durably.ledger.columns import moment, timestamp
from durably.ledger.operations import Operation, fetch, fetch_one
from durably.ledger.rows import run_from
from durably.records import RunRecord

NEWEST = 2**62
"""An id that no run has: where a search begins."""

SET_BACK = timedelta(days=1)
"""Ids follow the time at which runs are enqueued, unless a clock was set back: by up to so much."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What is looked for; None: anything.

    Attributes:
        states: one of these.
        key: a part of the key.
        text: a part of the prompt or the error.
        since, until: enqueued from then on, and before.
        other_than: not the run with this key.
    """

    states: tuple[str, ...] | None = None
    agent: str | None = None
    queue: str | None = None
    tag: str | None = None
    thread: str | None = None
    key: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    other_than: str | None = None

    def params(self) -> dict[str, object]:
        """As the statement takes them."""
        given: dict[str, object] = asdict(self)
        given["states"] = None if self.states is None else json.dumps(self.states)
        given["since"], given["until"] = map(_timestamp_or_none, (self.since, self.until))
        # A prompt is stored as JSON: in there it is written as JSON writes it.
        escaped = None if self.text is None else json.dumps(self.text, ensure_ascii=False)[1:-1]
        return given | {"escaped": escaped}


class Stretch(NamedTuple):
    """What was found among some of the runs, and where to go on; None: there are no more."""

    runs: list[RunRecord]
    next_before: int | None


def find_ends(filters: Filters) -> Operation[tuple[int, int]]:
    """Between which ids all runs are that were enqueued in the time that is looked for.

    Found by halves, and with room for clocks that were set back (`SET_BACK`).
    """
    after, before = 0, NEWEST
    if filters.since is not None:
        after = (yield from _first_from(filters.since - SET_BACK)) - 1
    if filters.until is not None:
        before = yield from _first_from(filters.until + SET_BACK)
    return after, before


def _first_from(time: datetime) -> Operation[int]:
    """The lowest id from which on runs were enqueued at a time, or after it."""
    ends = yield from fetch_one("ends_of_ids")
    if ends is None or ends["lowest"] is None:
        return NEWEST
    low, high = ends["lowest"], ends["highest"] + 1
    while low < high:
        middle = (low + high) // 2
        row = yield from fetch_one("run_from_id", run_id=middle)
        if row is None or moment(row["inserted_at"]) >= time:
            high = middle
        else:
            low = row["id"] + 1
    return low if low <= ends["highest"] else NEWEST


def look(filters: Filters, after: int, before: int, size: int, limit: int) -> Operation[Stretch]:
    """Look through the next ``size`` runs with ids below ``before`` for up to ``limit`` matches.

    Args:
        after: no further than this id.
    """
    ids = yield from _candidates(filters, after, before, size)
    found = yield from among(filters, ids, limit + 1)
    if len(found) > limit:
        return Stretch(found[:limit], found[limit - 1].id)
    return Stretch(found, ids[-1] if len(ids) == size else None)


def find_key(filters: Filters) -> Operation[RunRecord | None]:
    """The run whose key is the one that is looked for, if it matches otherwise, too."""
    row = yield from fetch_one("get_run", key=filters.key)
    if row is None:
        return None
    found = yield from among(replace(filters, other_than=None), [row["id"]], 1)
    return found[0] if found else None


def among(filters: Filters, ids: Sequence[int], limit: int) -> Operation[list[RunRecord]]:
    """Those of these runs that match, newest first."""
    if not ids:
        return []
    rows = yield from fetch("search_runs", ids=json.dumps(ids), limit=limit, **filters.params())
    return [run_from(row) for row in rows]


def _candidates(filters: Filters, after: int, before: int, size: int) -> Operation[list[int]]:
    """The next runs that may match, by the index that leaves out most."""
    where: dict[str, object] = {"after": after, "before": before, "limit": size}
    if filters.thread is not None:
        rows = yield from fetch("ids_of_thread_before", thread=filters.thread, **where)
        return [row["id"] for row in rows]
    if filters.states is None:
        return [row["id"] for row in (yield from fetch("ids_before", **where))]
    ids: list[int] = []
    for state in dict.fromkeys(filters.states):
        rows = yield from fetch("ids_of_state_before", state=state, **where)
        ids += [row["id"] for row in rows]
    return sorted(ids, reverse=True)[:size]


def _timestamp_or_none(at: datetime | None) -> str | None:
    return None if at is None else timestamp(at)
