"""A run's timeline as a Gantt chart: bars in lanes on an axis, for a template to draw as SVG.

Pure. Owns which bar is where and what it says; the axis is `axis`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from durably.records.timeline import Timeline, TimelineCall, TimelineStep, TimelineWait
from durably.web.views.axis import Axis
from durably.web.views.filters import exact, span, tone, words
from durably.web.views.text import one_line, visible

NARROWEST, WIDEST = 1080.0, 14_000.0
STEP_PX = 12.0
"""How wide half of the steps are at least, as far as the chart may be as wide as that."""

ROW, BAR, AXIS = 26, 18, 34
MOST_ROWS = 8
"""Rows of a lane; what overlaps with more is drawn over the last."""

CHAR_PX = 6.6


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: ``tone`` is its class, ``title`` what it says in full, ``label`` what fits in it."""

    x: float
    y: float
    width: float
    tone: str
    title: str
    label: str
    open: bool


@dataclass(frozen=True, slots=True)
class Lane:
    """Rows of one kind of bar."""

    name: str
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class Chart:
    """The whole chart, in pixels.

    Attributes:
        breaks: the place of each idle time that is shown shorter, its width, and how long it was.
        ticks: places on the axis and the time since the beginning there.
        crashes: where an attempt lost its worker, and what is said of that.
    """

    width: float
    height: float
    lanes: list[Lane]
    bars: list[Bar]
    breaks: list[tuple[float, float, str]]
    ticks: list[tuple[float, str]]
    crashes: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class _Span:
    start: datetime
    end: datetime
    tone: str
    name: str
    more: str
    open: bool = False
    idle: bool = False


def chart_of(timeline: Timeline, now: datetime) -> Chart:
    """The chart of a timeline that goes on until ``now`` at most."""
    end = timeline.ended_at or now
    # Of a call whose attempt is over without a word of it, nothing goes on any more.
    over = {attempt.attempt: attempt.ended_at for attempt in timeline.attempts}
    lanes = {
        "Attempts": list(_attempts(timeline, end)),
        "Model": [_step(step) for step in timeline.steps],
        "Tools": [_call(c, over.get(c.attempt) or end) for s in timeline.steps for c in s.calls],
        "Waits": [_wait(wait, end) for wait in timeline.waits],
    }
    spans = [s for name in ("Attempts", "Model", "Tools") for s in lanes[name] if not s.idle]
    ends = [s.end for found in lanes.values() for s in found]
    begins = [s.start for found in lanes.values() for s in found]
    axis = Axis(
        min([timeline.started_at, *begins]),
        max([end, *ends]),
        [(s.start, s.end) for s in spans],
        _width(timeline, spans),
    )
    return _drawn(axis, lanes, timeline)


def _drawn(axis: Axis, lanes: dict[str, list[_Span]], timeline: Timeline) -> Chart:
    y = float(AXIS)
    placed: list[Lane] = []
    bars: list[Bar] = []
    for name, spans in lanes.items():
        if not spans:
            continue
        rows = _rows(axis, spans)
        height = (max(rows) + 1) * ROW
        placed.append(Lane(name, y, height))
        bars += [_bar(axis, s, y + row * ROW) for s, row in zip(spans, rows, strict=True)]
        y += height + 8
    return Chart(
        width=axis.width,
        height=y,
        lanes=placed,
        bars=bars,
        breaks=[(p.x, p.width, span(p.seconds)) for p in axis.breaks],
        ticks=[(m.x, f"+{span(m.seconds)}" if m.seconds else "0") for m in axis.ticks()],
        crashes=[
            (
                axis.x(a.ended_at),
                f"Attempt {a.attempt} lost its worker; noticed {exact(a.ended_at)}",
            )
            for a in timeline.attempts
            if a.crashed and a.ended_at is not None
        ],
    )


def _bar(axis: Axis, found: _Span, y: float) -> Bar:
    x = axis.x(found.start)
    width = max(2.5, axis.x(found.end) - x)
    room = int((width - 8) / CHAR_PX)
    label = found.name if len(found.name) <= room else found.name[: room - 1] + "…"
    length = span((found.end - found.start).total_seconds())
    until = "still going on" if found.open else exact(found.end)
    title = f"{found.name}: {length}, {exact(found.start)} to {until}{found.more}"
    return Bar(
        x, y + (ROW - BAR) / 2, width, found.tone, title, label if room > 3 else "", found.open
    )


def _rows(axis: Axis, spans: Sequence[_Span]) -> list[int]:
    """The row of each bar, the first in which it stands in no other's way."""
    ends: list[float] = []
    found: list[int] = []
    for one in spans:
        x = axis.x(one.start)
        row = next((n for n, end in enumerate(ends) if end <= x + 0.5), len(ends))
        row = min(row, MOST_ROWS - 1)
        end = max(x + 2.5, axis.x(one.end))
        if row == len(ends):
            ends.append(end)
        ends[row] = max(ends[row], end)
        found.append(row)
    return found


def _width(timeline: Timeline, spans: Sequence[_Span]) -> float:
    """As wide as it takes to tell half of the steps from each other."""
    lengths = [s.seconds for s in timeline.steps if s.seconds > 0]
    busy = sum((s.end - s.start).total_seconds() for s in spans if s.tone.startswith("attempt"))
    if not lengths or not busy:
        return NARROWEST
    return min(WIDEST, max(NARROWEST, busy * STEP_PX / median(lengths)))


def _attempts(timeline: Timeline, end: datetime) -> Iterator[_Span]:
    for attempt in timeline.attempts:
        outcome = words(attempt.outcome.value) if attempt.outcome else "under way"
        error = f". {one_line(visible(attempt.error), 200)}" if attempt.error else ""
        yield _Span(
            attempt.started_at,
            attempt.ended_at or max(end, attempt.started_at),
            f"attempt {tone(attempt.outcome.value if attempt.outcome else 'executing')}",
            f"attempt {attempt.attempt}: {outcome}",
            f", by {one_line(visible(attempt.worker_id), 60)}{error}",
            open=attempt.ended_at is None,
        )


def _step(step: TimelineStep) -> _Span:
    tokens = f", {step.tokens:,} tokens" if step.tokens else ""
    tools = f", calls {', '.join(step.tools)}" if step.tools else ""
    again = ", not paid for again by a later attempt" if step.reused else ""
    more = one_line(visible(f"{tokens}, attempt {step.attempt}{tools}{again}"), 400)
    name = one_line(visible(step.model), 60) or "model"
    return _Span(step.started_at, step.answered_at, "model", name, more)


def _call(call: TimelineCall, end: datetime) -> _Span:
    return _Span(
        call.started_at,
        max(call.started_at, call.ended_at or end),
        f"tool {tone(call.state.value)}",
        one_line(visible(call.tool_name), 60),
        f", call {one_line(visible(call.call_id), 60)}, {words(call.state.value)}, "
        f"attempt {call.attempt}{', most of it waiting' if call.waited else ''}",
        open=call.ended_at is None,
        idle=call.waited,
    )


def _wait(wait: TimelineWait, end: datetime) -> _Span:
    who = f", ended by {one_line(visible(wait.by), 60)}" if wait.by else ""
    call = f", call {one_line(visible(wait.call_id), 60)}" if wait.call_id else ""
    return _Span(
        wait.started_at,
        max(wait.started_at, wait.ended_at or end),
        f"wait {'queue' if wait.kind == 'queue' else 'asked'}",
        words(wait.kind),
        f"{call}{who}",
        open=wait.ended_at is None,
    )
