"""Statistics: how many runs there are now, and what those took that ended over a window.

Owns what is exact and what is counted only so far; the sums are made in SQL, part by part of the
window, so that each is one look at one index.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from durably.ledger.columns import moment, timestamp
from durably.ledger.operations import Operation, Row, fetch, fetch_one
from durably.lifecycle import RunState
from durably.records import Ended, GroupStatistics, Spread, Statistics

COUNTED_TO = 100_000
"""How many runs of a final state are counted before it is only said that there are as many."""

ASKED_COUNTED_TO = 10_000
"""The same of what waits for people, and of calls in doubt, whose runs have to be looked at."""

EXACT_TO = 20_000
"""How many runs of a window have their durations looked at one by one; of more, so many of them."""

EVERY_ONE = 2**62

_SUMS = ("completed", "discarded", "cancelled", "failures", "crashes", "tokens", "cost_nanousd")


@dataclass(slots=True)
class _Part:
    """What ended in a part of the window, of one group; parts can be put together."""

    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SUMS, 0))
    begun: int = 0
    waited: list[int] = field(default_factory=list[int])
    executed: list[int] = field(default_factory=list[int])

    @classmethod
    def of(cls, row: Row) -> _Part:
        waited, executed = (sorted(json.loads(row[n] or "[]")) for n in ("waited", "executed"))
        return cls({name: row[name] for name in _SUMS}, row["begun"], waited, executed)

    def ended(self) -> Ended:
        wait, execution = (spread(self.begun, ms) for ms in (self.waited, self.executed))
        return Ended(**self.sums, wait=wait, execution=execution)


def together(parts: Sequence[_Part]) -> _Part:
    """One part of several."""
    if len(parts) == 1:
        return parts[0]
    whole = _Part()
    for part in parts:
        for name in _SUMS:
            whole.sums[name] += part.sums[name]
        whole.begun += part.begun
        whole.waited += part.waited
        whole.executed += part.executed
    # Made of pieces that are in order already, which sorting makes use of.
    whole.waited.sort()
    whole.executed.sort()
    return whole


def spread(count: int, durations_ms: Sequence[int]) -> Spread:
    """Median and 95th percentile of durations that are in order, between two of them if need be.

    Args:
        count: how many there are, of which these are some.
    """
    if not durations_ms:
        return Spread(count)
    return Spread(count, _at(durations_ms, 0.5), _at(durations_ms, 0.95))


def _at(durations_ms: Sequence[int], share: float) -> float:
    place = share * (len(durations_ms) - 1)
    below, part = int(place), place % 1
    above = min(below + 1, len(durations_ms) - 1)
    low, high = durations_ms[below], durations_ms[above]
    return (low + (high - low) * part) / 1000


def look(
    window_seconds: float,
    buckets: int,
    by: str | None,
    agent: str | None,
    queue: str | None,
    model: str | None,
) -> Operation[Statistics]:
    """What there is now, and what ended in the last ``window_seconds``, in so many parts.

    Args:
        by: ``agent``, ``queue`` or ``model``: what to tell apart; None: nothing.
        agent, queue, model: only runs of these.
    """
    row = yield from fetch_one("time_now")
    assert row is not None, "there is always a time"
    until = moment(row["now"])
    since = until - timedelta(seconds=window_seconds)
    every = yield from _sampled(since, until)
    params: dict[str, object] = {"agent": agent, "queue": queue, "model": model}
    found: list[dict[str | None, _Part]] = []
    for begin, end in _bounds(since, until, buckets):
        part: dict[str, object] = {"since": begin, "until": end, "every": every, **params}
        if by is None:
            rows = yield from fetch("ended_together", **part)
        else:
            rows = yield from fetch("ended_between", by=by, **part)
        found.append({row["name"]: _Part.of(row) for row in rows})
    asked = yield from _count_asked()
    return Statistics(
        since=since,
        until=until,
        bucket_seconds=window_seconds / buckets,
        by=by,
        sampled=every,
        states=(yield from count_states()),
        waiting=asked,
        in_doubt=(yield from _count("count_doubts", "calls")),
        counted_to=COUNTED_TO,
        asked_counted_to=ASKED_COUNTED_TO,
        total=_group(None, [list(parts.values()) for parts in found]),
        groups=[] if by is None else _groups(found),
    )


def _sampled(since: datetime, until: datetime) -> Operation[int]:
    """Of every how many runs the durations are looked at."""
    row = yield from fetch_one("count_ended", since=timestamp(since), until=timestamp(until))
    return 1 if row is None else max(1, -(-row["runs"] // EXACT_TO))


def count_states() -> Operation[dict[str, int]]:
    """How many runs are in each state: final ones up to `COUNTED_TO`."""
    counts: dict[str, int] = {}
    for state in RunState:
        limit = COUNTED_TO if state.final else EVERY_ONE
        row = yield from fetch_one("count_state", state=state, limit=limit)
        counts[str(state)] = 0 if row is None else row["runs"]
    return counts


def _count_asked() -> Operation[dict[str, int]]:
    rows = yield from fetch("count_asked", limit=ASKED_COUNTED_TO)
    counts: dict[str, int] = {row["kind"]: row["things"] for row in rows}
    if budgets := (yield from _count("count_budget_waits", "runs")):
        counts["budget"] = budgets
    return counts


def _count(statement: str, what: str) -> Operation[int]:
    row = yield from fetch_one(statement, limit=ASKED_COUNTED_TO)
    return 0 if row is None else row[what]


def _bounds(since: datetime, until: datetime, buckets: int) -> list[tuple[str, str]]:
    """Where the parts begin and end; what ends at the very end belongs to the window."""
    times = [timestamp(since + (until - since) * n / buckets) for n in range(buckets + 1)]
    return list(pairwise(times))


def _groups(found: Sequence[dict[str | None, _Part]]) -> list[GroupStatistics]:
    names = dict.fromkeys(name for parts in found for name in parts)
    groups = [
        _group(name, [[parts[name]] if name in parts else [] for parts in found]) for name in names
    ]
    return sorted(groups, key=lambda group: (-group.total.runs, group.name or ""))


def _group(name: str | None, buckets: Sequence[Sequence[_Part]]) -> GroupStatistics:
    parts = [together(bucket) for bucket in buckets]
    return GroupStatistics(name, together(parts).ended(), [part.ended() for part in parts])
