"""Times, durations and amounts as people say them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def duration(length: timedelta | float | None) -> str:
    """A duration, of seconds where it is a number: 40 ms, 3.2 s, 12 s, 5 min 3 s, 2 h 5 min."""
    if length is None:
        return ""
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, second = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {second} s" if second else f"{minutes} min"
    hours, minute = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minute} min" if minute else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def exact(moment: datetime | None) -> str:
    """A moment to the millisecond, in UTC; for titles."""
    if moment is None:
        return ""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"


def clock(moment: datetime | None) -> str:
    """A moment to the second, in UTC."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def dollars(nanousd: int) -> str:
    """Billionths of a US dollar with as many digits as tell something."""
    usd = nanousd / 1_000_000_000
    if usd == 0 or usd >= 1:
        return f"${usd:,.2f}"
    return f"${usd:.4f}" if usd >= 0.001 else f"${usd:.6f}"


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 token``, ``1,200 tokens``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
