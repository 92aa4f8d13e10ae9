"""Plots of any numbers: what is drawn can be drawn, and stays in its box."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from durably.records import Ended, GroupStatistics, Spread, Statistics
from durably.web.pages.rendering import templates
from durably.web.views import filters
from durably.web.views.overview import plots_of
from durably.web.views.plots import HEIGHT, MOST, WIDTH, Plot, Series, Span, lines, nice, stacked

START = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)
NUMBERS = st.none() | st.floats() | st.integers(-(10**20), 10**20) | st.integers(0, 50)
NAMES = st.text(max_size=20) | st.just("</title><script>alert(1)</script>")
SVG = "{http://www.w3.org/2000/svg}"


def span(parts: int) -> Span:
    return Span(START, START + timedelta(hours=1), parts)


@given(st.data(), st.integers(0, 12), st.lists(NAMES, max_size=4), st.booleans())
def test_any_numbers_can_be_drawn(
    data: st.DataObject, parts: int, names: list[str], bars: bool
) -> None:
    values = st.lists(NUMBERS, min_size=parts, max_size=parts)
    series = [Series(name, data.draw(values), "look-main") for name in names]
    plot = (stacked if bars else lines)("Some", span(parts), series, filters.count)
    picture = drawn(plot)
    for rect in picture.iter("rect"):
        x, y, width, height = (float(rect.attrib[n]) for n in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and width > 0 and height >= 0
        assert x + width <= WIDTH + 0.02 and y + height <= HEIGHT + 0.02
    for points in picture.iter("polyline"):
        pairs = [pair.split(",") for pair in points.attrib["points"].split()]
        assert len(pairs) > 1
        assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in pairs)
    assert not list(picture.iter("script"))
    assert all(len(row) == len(plot.columns) for row in plot.rows)


def test_bars_stand_on_each_other_and_are_as_high_as_their_numbers() -> None:
    up = Series("up", [1, 0, 3], "look-ok")
    down = Series("down", [1, None, 1], "look-bad")
    plot = stacked("Some", span(3), [up, down], filters.count)
    assert plot.scale == ("5", "2.5", "0")
    assert [(b.look, b.height) for b in plot.bars] == [
        ("look-ok", HEIGHT / 5),
        ("look-bad", HEIGHT / 5),
        ("look-ok", HEIGHT * 3 / 5),
        ("look-bad", HEIGHT / 5),
    ]
    first, on_it = plot.bars[:2]
    assert math.isclose(on_it.y + on_it.height, first.y)
    assert plot.rows == (("09:00", "1", "1"), ("09:40", "3", "1"))
    gaps = lines("Some", span(4), [Series("wait", [1, 2, None, 4], "look-1")], filters.span)
    (line,) = gaps.lines
    assert len(line.paths) == 1 and len(line.dots) == 1, "a gap, and a point on its own"


@given(st.floats(0, MOST))
def test_a_scale_has_room_for_its_numbers_and_no_more_than_needed(most: float) -> None:
    assert most <= nice(most)
    assert most < 1e-300 or nice(most) <= most * 2.6


def test_an_overview_is_told_apart_by_its_groups() -> None:
    def ended(runs: int) -> Ended:
        return Ended(completed=runs, tokens=runs * 10, cost_nanousd=runs * 10**9,
                     wait=Spread(runs, 1.0 * runs, 2.0))  # fmt: skip

    groups = [GroupStatistics(f"agent-{n}", ended(9 - n), [ended(9 - n)] * 4) for n in range(7)]
    total = GroupStatistics(None, ended(42), [ended(42)] * 4)
    statistics = Statistics(
        since=START, until=START + timedelta(minutes=4), bucket_seconds=60.0, by="agent",
        states={}, waiting={}, in_doubt=0, counted_to=100, asked_counted_to=100, sampled=1,
        total=total, groups=groups,
    )  # fmt: skip
    plots = {plot.title: plot for plot in plots_of(statistics)}
    assert [name for name, _ in plots["Runs a minute"].legend][-1] == "2 others"
    assert plots["Runs a minute"].rows[0][1:] == ("9", "8", "7", "6", "5", "7")
    assert "42 ended" in plots["Runs a minute"].said
    assert plots["Money"].rows[0][1] == "$9.00"
    assert len(plots["Wait"].legend) == 5, "medians are not added up"


def test_numbers_are_written_as_people_read_them() -> None:
    said = [filters.count(n) for n in (0, 9_999, 10_000, 1_234_567, 2.5)]
    assert said == ["0", "9,999", "10 k", "1.2 M", "2.5"]
    said = [filters.usd(n) for n in (0, Decimal("0.5"), 0.0123, 1234.5, None)]
    assert said == ["$0.00", "$0.50", "$0.0123", "$1,234.50", "–"]
    said = [filters.span(n) for n in (0.25, 3, 61, 3600, 90_000, None)]
    assert said == ["250 ms", "3 s", "1 min 1 s", "1 h", "1 d 1 h", "–"]
    assert filters.ago(START, START + timedelta(minutes=3)) == "3 min ago"


def drawn(plot: Plot) -> ElementTree.Element:
    """The picture, as a browser gets it."""
    macros: Any = templates.get_template("parts/plot.html").module
    html = str(macros.plot(plot, "p"))
    svg = html[html.index("<svg") : html.index("</svg>") + 6]
    return ElementTree.fromstring(svg)
