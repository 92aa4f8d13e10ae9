"""The named statements as SQLite is given them: the times that they name are parameters.

Owns which times a statement needs, and what text a file can hold. A call from a statement into
Python costs more than most statements do, so only times that depend on a row are asked for so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import NamedTuple

from durably.ledger.columns import LATEST, timestamp
from durably.ledger.queries import load_queries

_TIME = re.compile(
    r"durably_(?:now\(\)|after\((?P<sign>-?)(?:CAST\()?:(?P<seconds>\w+)"
    r"(?: AS DOUBLE PRECISION\))?\))"
)


_CHANGES = re.compile(
    r"(?P<change>(?:\s|--[^\n]*\n)*(?:INSERT|UPDATE|DELETE)\b.*)\nRETURNING [\w, *]+", re.DOTALL
)


class Time(NamedTuple):
    """A time that a statement names.

    Attributes:
        name: of the parameter that holds it.
        seconds: the parameter that says how many seconds from now it is; None: it is now.
        sign: 1 for so many seconds from now, -1 for so many seconds ago.
    """

    name: str
    seconds: str | None
    sign: int


class Prepared(NamedTuple):
    """A statement, and the times that it needs besides its own parameters.

    Attributes:
        counted: the same where only the number of rows that it changes matters, which the driver
            counts by itself; None where it does not, or where the statement returns no rows.
    """

    text: str
    times: tuple[Time, ...]
    counted: str | None = None

    def bound(self, params: Mapping[str, object], now: datetime) -> Mapping[str, object]:
        """The statement's parameters as SQLite is given them."""
        # Together: to look at each value by itself would take longer than most statements do.
        texts = "".join([value for value in params.values() if isinstance(value, str)])
        if not texts.isascii() or "\0" in texts:
            params = {name: _storable(value) for name, value in params.items()}
        if not self.times:
            return params
        bound = dict(params)
        for name, seconds, sign in self.times:
            ahead = None if seconds is None else params[seconds]
            if isinstance(ahead, (int, float)) and ahead:
                bound[name] = after(now, sign * ahead)
            else:
                bound[name] = _written(now)
        return bound


@cache
def statements() -> dict[str, Prepared]:
    """Every statement for SQLite, by name."""
    return {name: _prepared(text) for name, text in load_queries("sqlite").items()}


def _prepared(text: str) -> Prepared:
    times: dict[str, Time] = {}

    def parameter(found: re.Match[str]) -> str:
        seconds = found["seconds"]
        past = found["sign"] == "-"
        name = "at_now" if seconds is None else f"at_{'minus' if past else 'plus'}_{seconds}"
        times[name] = Time(name, seconds, -1 if past else 1)
        return f":{name}"

    text = _TIME.sub(parameter, text)
    return Prepared(text, tuple(times.values()), _counted(text))


def _counted(text: str) -> str | None:
    """A change without its ``RETURNING``, for which SQLite makes a table of what is returned.

    That takes as long as the change itself. Of one that begins with WITH, sqlite3 counts nothing
    (Python docs, "Cursor.rowcount").
    """
    changes = _CHANGES.fullmatch(text)
    return changes["change"] if changes else None


_written = lru_cache(maxsize=16)(timestamp)
"""All statements of an operation are at one time, which is put into words once."""


def after(now: datetime, seconds: float) -> str:
    """So many seconds from now, or the last time that there is."""
    try:
        return timestamp(now + timedelta(seconds=seconds))
    except OverflowError:
        return timestamp(LATEST)


def _storable(value: object) -> object:
    """Text as PostgreSQL can hold it, too: a NUL, or half a character, becomes a mark."""
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
