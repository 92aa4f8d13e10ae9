"""How times, amounts and states are written on a page; the filters of the templates.

Pure, but for the clock that says how long ago something was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

SHOWN_CHARACTERS = 200

_TONES = {
    "scheduled": "idle",
    "available": "idle",
    "executing": "busy",
    "retryable": "warn",
    "suspended": "info",
    "completed": "ok",
    "discarded": "bad",
    "cancelled": "idle",
    "started": "busy",
    "done": "ok",
    "failed": "bad",
    "in_doubt": "warn",
    "awaiting": "info",
    "denied": "bad",
    "handed_back": "idle",
    "lost": "bad",
    "alive": "ok",
    "dead": "bad",
    "paused": "warn",
}


def tone(state: Any) -> str:
    """The class of a badge: how a state of anything is to be taken."""
    return _TONES.get(str(state), "idle")


def words(name: Any) -> str:
    """A name as it is in code, as words: ``in_doubt`` is "in doubt"."""
    return str(name).replace("_", " ")


def cut(text: Any, length: int = SHOWN_CHARACTERS) -> str:
    """The beginning of a text that may be long."""
    whole = str(text)
    return whole if len(whole) <= length else whole[: length - 1].rstrip() + "…"


def plain(value: Any) -> str:
    """A JSON value in one line, as a person reads it: text without its quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def pretty(value: Any) -> str:
    """A JSON value over several lines; text as it is."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago, or in how long; the date itself where that is further away than a week."""
    between = (now or datetime.now(UTC)) - moment
    if abs(between) > timedelta(days=7):
        return f"{moment:%Y-%m-%d}"
    seconds = between.total_seconds()
    if abs(seconds) < 1:
        return "now"
    length = " ".join(span(abs(int(seconds))).split()[:2])  # The largest unit will do.
    return f"{length} ago" if seconds > 0 else f"in {length}"


def exact(moment: datetime) -> str:
    """To the second, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(seconds: float | None) -> str:
    """A length of time in its largest unit, or the two largest; "–" for none."""
    if seconds is None:
        return "–"
    if seconds < 0.001:
        return "0 s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    whole = round(seconds)
    for size, unit, below, smaller in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // below
            shows_rest = rest and whole < 10 * size
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if shows_rest else "")
    return f"{whole} s"


def count(number: float | None) -> str:
    """A number that is counted: exact while it is short, then in thousands and millions."""
    if number is None:
        return "–"
    if abs(number) < 10_000:
        return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            short = f"{number / size:.1f}".removesuffix(".0")
            return f"{short} {unit}"
    raise AssertionError(number)


def usd(amount: Decimal | float | None) -> str:
    """US dollars: to the cent, or with four digits where that would be nothing."""
    if amount is None:
        return "–"
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:,.2f}"
    cents, rest = f"{amount:.4f}"[:-2], f"{amount:.4f}"[-2:].rstrip("0")
    return f"${cents}{rest}"


def ident(text: Any) -> str:
    """A name for a part of a page, from any text: the same for the same text."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f".{ord(match[0]):x}", str(text))


FILTERS: dict[str, Callable[..., str]] = {
    "tone": tone,
    "words": words,
    "cut": cut,
    "plain": plain,
    "pretty": pretty,
    "ago": ago,
    "exact": exact,
    "span": span,
    "count_of": count,
    "usd": usd,
    "ident": ident,
}
"""The filters that every template has."""
