"""A time axis on which long idle times are short, so that what happened between them can be seen.

Pure: from times to places along a chart, and the marks that say what was left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

BREAK_PX = 46.0
"""How wide an idle time is that was shortened."""

LONGEST_SHARE = 0.12
"""How much of the busy time an idle time may take before it is shortened."""

TICK_PX = 110.0

_NICE = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time with one scale.

    Attributes:
        start, seconds: since the beginning of the axis.
        x, width: its place.
        cut: it is shown shorter than it was.
    """

    start: float
    seconds: float
    x: float
    width: float
    cut: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A place on the axis with words."""

    x: float
    seconds: float


class Axis:
    """Places for the times from ``start`` to ``end``.

    Args:
        busy: when something went on; the rest is idle.
        width: how wide the busy time is to be, in pixels.
    """

    def __init__(
        self,
        start: datetime,
        end: datetime,
        busy: Iterable[tuple[datetime, datetime]],
        width: float,
    ) -> None:
        self.start = start
        length = max((end - start).total_seconds(), 0.001)
        spans = [(self._at(a), self._at(b)) for a, b in busy]
        self.pieces = _pieces(_merged(spans, length), length, width)
        self.width = self.pieces[-1].x + self.pieces[-1].width
        self._starts = [piece.start for piece in self.pieces]

    def x(self, moment: datetime) -> float:
        """The place of a moment; one outside is at the edge."""
        return self._place(self._at(moment))

    @property
    def breaks(self) -> list[Piece]:
        """The idle times that were shortened."""
        return [piece for piece in self.pieces if piece.cut]

    def ticks(self) -> list[Mark]:
        """Round times since the beginning, where there is room for them."""
        found: list[Mark] = []
        for piece in self.pieces:
            if piece.cut:
                continue
            step = _nice(piece.seconds * TICK_PX / piece.width) if piece.width else 1.0
            count = int((piece.start + piece.seconds) / step) - int(piece.start / step)
            for n in range(min(count, 400) + 1):
                seconds = (int(piece.start / step) + n) * step
                if piece.start <= seconds <= piece.start + piece.seconds:
                    found.append(Mark(self._place(seconds), seconds))
        return _apart(found)

    def _at(self, moment: datetime) -> float:
        return (moment - self.start).total_seconds()

    def _place(self, seconds: float) -> float:
        piece = self.pieces[max(0, bisect_right(self._starts, seconds) - 1)]
        share = (seconds - piece.start) / piece.seconds if piece.seconds else 0.0
        return piece.x + min(1.0, max(0.0, share)) * piece.width


def _merged(spans: Sequence[tuple[float, float]], length: float) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for a, b in sorted((max(0.0, a), min(length, b)) for a, b in spans):
        if b < a:
            continue
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], b))
        else:
            merged.append((a, b))
    return merged


def _pieces(busy: Sequence[tuple[float, float]], length: float, width: float) -> list[Piece]:
    """Busy and idle stretches in turn, the longest idle ones shortened."""
    stretches: list[tuple[float, float, bool]] = []
    at = 0.0
    for a, b in busy:
        if a > at:
            stretches.append((at, a, True))
        stretches.append((a, b, False))
        at = max(at, b)
    if length > at or not stretches:
        stretches.append((at, length, True))
    total = sum(b - a for a, b in busy)
    longest = total * LONGEST_SHARE
    # What is left idle at its own length is part of what the width is for.
    kept = sum(b - a for a, b, idle in stretches if not idle or b - a <= longest)
    scale = width / kept if kept else 0.0
    pieces: list[Piece] = []
    x = 0.0
    for a, b, idle in stretches:
        cut = idle and b - a > longest
        wide = BREAK_PX if cut else (b - a) * scale
        pieces.append(Piece(a, b - a, x, wide, cut))
        x += wide
    return pieces


def _nice(seconds: float) -> float:
    """The round number of seconds that is next above."""
    if seconds <= 1:
        size = 1.0
        while size > seconds and size > 1e-4:
            for part in (size, size / 2, size / 5):
                if part / 2 < seconds <= part:
                    return part
            size /= 10
        return max(size, 1e-4)
    return float(next((n for n in _NICE if n >= seconds), 86400 * (int(seconds / 86400) + 1)))


def _apart(marks: Sequence[Mark]) -> list[Mark]:
    """Only those that do not stand in each other's way."""
    kept: list[Mark] = []
    for mark in marks:
        if not kept or mark.x - kept[-1].x >= TICK_PX * 0.6:
            kept.append(mark)
    return kept
