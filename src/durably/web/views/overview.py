"""What the overview shows of the statistics of a window: plots, and a table of the groups.

Pure. Owns which numbers go together; how they are drawn is `plots`'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from durably.lifecycle import RunState
from durably.records import Ended, GroupStatistics, Statistics
from durably.web.views.filters import count, span, usd
from durably.web.views.plots import Plot, Series, Span, lines, stacked

WINDOWS = {
    "15m": (900, "15 min", 4),
    "1h": (3600, "1 h", 4),
    "24h": (86_400, "24 h", 10),
    "7d": (604_800, "7 d", 30),
}
"""The windows that can be chosen: how they are written in an address, their seconds, their name,
and after how many seconds they are looked at again: the long ones change little, and cost more."""

DEFAULT_WINDOW = "1h"

MOST_GROUPS = 5
"""Groups that are drawn; the rest is drawn together."""

NANO = 1_000_000_000

type Value = Callable[[Ended], float | None]


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many runs are in a state now; ``more``: that many or more."""

    state: str
    runs: int
    more: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """How many things of a kind wait for people; ``more``: that many or more."""

    kind: str
    things: int
    more: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows.

    Attributes:
        asked: what waits for people; nothing of a kind of which nothing waits.
        in_doubt: how many calls are in doubt, also those that nobody is asked about yet.
        groups: one by one, with their names; empty where nothing is told apart.
    """

    states: list[StateCount]
    asked: list[Asked]
    in_doubt: int
    in_doubt_more: bool
    plots: list[Plot]
    groups: list[tuple[str, Ended]]


def overview_of(statistics: Statistics) -> Overview:
    """Everything of a window."""
    most = statistics.asked_counted_to
    return Overview(
        states=states_of(statistics),
        asked=[Asked(kind, n, n >= most) for kind, n in statistics.waiting.items() if n],
        in_doubt=statistics.in_doubt,
        in_doubt_more=statistics.in_doubt >= most,
        plots=plots_of(statistics),
        groups=[(name_of(group, statistics.by), group.total) for group in statistics.groups],
    )


def states_of(statistics: Statistics) -> list[StateCount]:
    """Every state with how many runs are in it."""
    return [
        StateCount(state, runs, state.final and runs >= statistics.counted_to)
        for state in RunState
        for runs in [statistics.states.get(state, 0)]
    ]


def plots_of(statistics: Statistics) -> list[Plot]:
    """The plots of a window: of everything in it, or of its groups one by one."""
    over = Span(statistics.since, statistics.until, len(statistics.total.buckets))
    minutes = statistics.bucket_seconds / 60
    total = statistics.total.total
    all_minutes = max(1e-9, (statistics.until - statistics.since).total_seconds() / 60)

    def series(
        *natural: tuple[str, Value, str], of_group: Value, sums: bool = True
    ) -> list[Series]:
        if statistics.by is None:
            return [_series(name, statistics.total, value, look) for name, value, look in natural]
        return _grouped(statistics, of_group, sums=sums)

    def rate(value: Callable[[Ended], int]) -> Value:
        return lambda ended: value(ended) / minutes if minutes else None

    return [
        stacked(
            "Runs a minute",
            over,
            series(
                ("completed", rate(lambda e: e.completed), "look-ok"),
                ("cancelled", rate(lambda e: e.cancelled), "look-idle"),
                ("discarded", rate(lambda e: e.discarded), "look-bad"),
                of_group=rate(lambda e: e.runs),
            ),
            _rate,
            f"{count(total.runs)} ended, {_rate(total.runs / all_minutes)} a minute",
        ),
        stacked(
            "Failures",
            over,
            series(
                ("failed attempts", lambda e: e.failures, "look-warn"),
                ("crashes", lambda e: e.crashes, "look-high"),
                ("discarded runs", lambda e: e.discarded, "look-bad"),
                of_group=lambda e: e.failures + e.crashes + e.discarded,
            ),
            count,
            f"{count(total.failures)} failed, {count(total.crashes)} crashed, "
            f"{count(total.discarded)} discarded",
        ),
        lines(
            "Wait",
            over,
            series(
                ("median", lambda e: e.wait.median, "look-main"),
                ("95th of 100", lambda e: e.wait.p95, "look-high"),
                of_group=lambda e: e.wait.median,
                sums=False,
            ),
            span,
            f"median {span(total.wait.median)}, 95th {span(total.wait.p95)}",
        ),
        lines(
            "Time in attempts",
            over,
            series(
                ("median", lambda e: e.execution.median, "look-main"),
                ("95th of 100", lambda e: e.execution.p95, "look-high"),
                of_group=lambda e: e.execution.median,
                sums=False,
            ),
            span,
            f"median {span(total.execution.median)}, 95th {span(total.execution.p95)}",
        ),
        stacked(
            "Money",
            over,
            series(
                ("US dollars", lambda e: e.cost_nanousd / NANO, "look-main"),
                of_group=lambda e: e.cost_nanousd / NANO,
            ),
            usd,
            f"{usd(total.cost_nanousd / NANO)} altogether",
        ),
        stacked(
            "Tokens",
            over,
            series(("tokens", lambda e: e.tokens, "look-main"), of_group=lambda e: e.tokens),
            count,
            f"{count(total.tokens)} altogether",
        ),
    ]


def _grouped(statistics: Statistics, value: Value, *, sums: bool) -> list[Series]:
    """A series of each of the largest groups, and where numbers can be added one of the others."""
    drawn = statistics.groups[:MOST_GROUPS]
    found = [
        _series(name_of(group, statistics.by), group, value, f"look-{number}")
        for number, group in enumerate(drawn, 1)
    ]
    rest = statistics.groups[MOST_GROUPS:]
    if rest and sums:
        columns = zip(*([value(ended) for ended in group.buckets] for group in rest), strict=True)
        found.append(Series(f"{len(rest)} others", [_together(c) for c in columns], "look-other"))
    return found


def name_of(group: GroupStatistics, by: str | None) -> str:
    """How a group is called."""
    return group.name or (f"no {by}" if by else "all")


def _together(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None


def _series(name: str, group: GroupStatistics, value: Value, look: str) -> Series:
    return Series(name, [value(ended) for ended in group.buckets], look)


def _rate(value: float) -> str:
    if value == 0 or value >= 10:
        return count(round(value))
    return f"{value:.2g}"
