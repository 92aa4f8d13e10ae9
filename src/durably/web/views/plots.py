"""Plots of numbers over time, as shapes in a box of 600 by 120: bars, stacked or not, and lines.

Pure. Owns where everything is drawn; any number at all gives a plot that can be drawn. Templates
make SVG of it, with the numbers as a table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

WIDTH = 600.0
HEIGHT = 120.0
MOST = 1e15
"""What is more is drawn as this much."""

type Words = Callable[[float], str]
"""Writes a number down, with its unit."""


@dataclass(frozen=True, slots=True)
class Series:
    """One number for each part of the time; None: there is none.

    Attributes:
        look: its class in the styles.
    """

    name: str
    values: Sequence[float | None]
    look: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    look: str


@dataclass(frozen=True, slots=True)
class Line:
    """Points that are joined, as SVG writes them, and those with no neighbour."""

    paths: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]
    look: str


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the time, over the whole height: what a pointer over it reads."""

    x: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Everything that a template draws.

    Attributes:
        scale: what is written beside the plot: at the top, half way, at the bottom.
        times: what is written below: at the beginning, half way, at the end.
        legend: the name and the class of each series.
        columns, rows: the numbers as a table.
        empty: there is nothing to see.
    """

    title: str
    said: str
    scale: tuple[str, str, str]
    times: tuple[str, str, str]
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    parts: tuple[Part, ...]
    legend: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    empty: bool
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True, slots=True)
class Span:
    """The time of a plot, in parts of the same length."""

    since: datetime
    until: datetime
    parts: int

    def start_of(self, part: float) -> datetime:
        """When a part begins."""
        return self.since + (self.until - self.since) * (part / max(1, self.parts))

    def at(self, moment: datetime) -> str:
        """A moment as it is written below: the day where the time is longer than one."""
        long = self.until - self.since > timedelta(days=1)
        return f"{moment:%d %b %H:%M}" if long else f"{moment:%H:%M}"


def stacked(title: str, span: Span, series: Sequence[Series], words: Words, said: str = "") -> Plot:
    """Bars on top of each other, one for each part of the time.

    Args:
        said: in a few words what is in it; for whom the picture is nothing.
    """
    drawn = [[drawable(value) for value in one.values] for one in series]
    sums = [sum(parts) for parts in zip(*drawn, strict=True)]
    top = nice(max(sums, default=0.0))
    width = WIDTH / max(1, span.parts)
    gap = min(1.0, width / 4)
    bars: list[Bar] = []
    for part in range(span.parts):
        y = HEIGHT
        for one, values in zip(series, drawn, strict=True):
            height = min(y, values[part] / top * HEIGHT)
            y -= height
            if height > 0:
                bars.append(Bar(part * width + gap / 2, y, width - gap, height, one.look))
    return _plot(title, span, series, words, said, top, bars=tuple(bars))


def lines(title: str, span: Span, series: Sequence[Series], words: Words, said: str = "") -> Plot:
    """Lines from one part of the time to the next; where a number is missing, a gap."""
    values = [drawable(value) for one in series for value in one.values]
    top = nice(max(values, default=0.0))
    drawn = tuple(_line(one, span.parts, top) for one in series)
    return _plot(title, span, series, words, said, top, lines=drawn)


def drawable(value: float | None) -> float:
    """A number as it can be drawn: from 0 to `MOST`, and 0 where there is none."""
    if value is None or math.isnan(value):
        return 0.0
    return float(min(max(value, 0.0), MOST))


def nice(most: float) -> float:
    """The round number at the top of a scale that has room for ``most``: 1, 2 or 5, and zeros."""
    if not most > 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(most))
    if size == 0:
        return most  # Too small to have a round number.
    return next(size * step for step in (1, 2, 5, 10, 20) if size * step >= most)


def _line(series: Series, parts: int, top: float) -> Line:
    width = WIDTH / max(1, parts)
    stretches: list[list[tuple[float, float]]] = [[]]
    for part, value in enumerate(series.values):
        if value is None or math.isnan(value):
            stretches.append([])
            continue
        y = HEIGHT - min(1.0, drawable(value) / top) * HEIGHT
        stretches[-1].append(((part + 0.5) * width, y))
    paths = tuple(_path(points) for points in stretches if len(points) > 1)
    dots = tuple(points[0] for points in stretches if len(points) == 1)
    return Line(paths, dots, series.look)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _plot(
    title: str,
    span: Span,
    series: Sequence[Series],
    words: Words,
    said: str,
    top: float,
    *,
    bars: tuple[Bar, ...] = (),
    lines: tuple[Line, ...] = (),
) -> Plot:
    width = WIDTH / max(1, span.parts)
    half, end = span.at(span.start_of(span.parts / 2)), f"{span.at(span.until)} UTC"
    starts = [span.at(span.start_of(part)) for part in range(span.parts)]
    texts = [[_text(value, words) for value in one.values] for one in series]
    rows = tuple(
        (starts[part], *(column[part] for column in texts))
        for part in range(span.parts)
        if any(one.values[part] for one in series)
    )
    titles = {row[0]: _title(row, series) for row in rows}
    return Plot(
        title=title,
        said=said,
        scale=(words(top), words(top / 2), words(0.0)),
        times=(span.at(span.since), half, end),
        bars=bars,
        lines=lines,
        parts=tuple(
            Part(part * width, width, titles.get(starts[part], starts[part]))
            for part in range(span.parts)
        ),
        legend=tuple((one.name, one.look) for one in series),
        columns=("From (UTC)", *(one.name for one in series)),
        rows=rows,
        empty=not rows,
    )


def _title(row: tuple[str, ...], series: Sequence[Series]) -> str:
    said = [f"{one.name} {text}" for one, text in zip(series, row[1:], strict=True)]
    return f"{row[0]}: {', '.join(said)}"


def _text(value: float | None, words: Words) -> str:
    return "–" if value is None or not math.isfinite(value) else words(value)
