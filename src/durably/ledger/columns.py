"""Columns to values, whatever somebody has made of them: what cannot be read is named.

Owns that no row fails the statement that it came with; what a damaged row means is its reader's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from durably.ledger.operations import Row

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for a time that cannot be read."""

EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, tzinfo=UTC)
"""Between these a time can be shown in any time zone."""

_NAMES: dict[type, str] = {dict: "an object", list: "a list", str: "a text", type(None): "null"}


def timestamp(at: datetime) -> str:
    """A moment as the ledger writes it: ISO 8601, UTC, microseconds, so that text sorts by time."""
    if at.tzinfo is not UTC:
        try:
            at = at.astimezone(UTC)
        except OverflowError:
            at = LATEST if at.year > 1 else EARLIEST
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def moment(value: object) -> datetime:
    """A time column; SQLite keeps text, Postgres gives a datetime. `NO_TIME` if it is none."""
    found = moment_in(value)
    return NO_TIME if found is None else found


def moment_in(value: object) -> datetime | None:
    """`moment`; None if it is none."""
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        aware = found.replace(tzinfo=UTC) if found.tzinfo is None else found
        if aware < EARLIEST:
            return EARLIEST
        if aware > LATEST:
            return LATEST
        return aware if aware.tzinfo is UTC else aware.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def moment_or_none(value: object) -> datetime | None:
    """A time column that may be empty."""
    return None if value is None else moment(value)


def decoded(value: object) -> Any:
    """A JSON column; SQLite keeps text, Postgres may give the value.

    Half a character, which JSON may hold, is kept as it is.

    Raises:
        ValueError: it is not JSON; a sentence's end says why.
    """
    if not isinstance(value, str):
        return value
    if value == "{}":
        return {}  # As most of them are.
    try:
        return _decode(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}, character {error.pos})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"not JSON ({name} is no number)")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"no JSON that can be read (the number {text[:20]} is too large)")
    return number


_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode
"""Made once: ``json.loads`` with such arguments makes a decoder for each text."""


class Columns:
    """The columns of one row, by what they should hold; what they don't is in `damage`.

    Args:
        table: the row's table.
        of: which of its run's rows there it is, such as ``call 0.1``; empty for the run's own.

    Attributes:
        damage: a sentence about each column that cannot be read; its value is as if it were empty.
    """

    def __init__(self, table: str, row: Row, of: str = "") -> None:
        self.row = row
        self._table = table
        self._of = f" of {of}" if of else ""
        self._damage: list[str] = []

    @property
    def damage(self) -> tuple[str, ...]:
        return tuple(self._damage)

    def with_damage(self, data: dict[str, Any]) -> dict[str, Any]:
        """The data of a row that has no other place to say what of it cannot be read."""
        return data | {"damage": list(self._damage)} if self._damage else data

    def object(self, name: str) -> dict[str, Any]:
        """A JSON object."""
        return self._json(name, dict, {})

    def object_or_none(self, name: str) -> dict[str, Any] | None:
        """A JSON object, if there is one."""
        return None if self.row[name] is None else self.object(name)

    def texts(self, name: str) -> list[str]:
        """A JSON list of texts."""
        found: list[object] = self._json(name, list, [])
        texts = [item for item in found if isinstance(item, str)]
        if len(texts) < len(found):
            self.note(name, "no list of texts")
        return texts

    def value(self, name: str) -> Any:
        """Any JSON."""
        try:
            return decoded(self.row[name])
        except ValueError as error:
            self.note(name, str(error))
            return None

    def json_text(self, name: str) -> str:
        """JSON that is kept as text; as it is, also if it cannot be read."""
        self.value(name)
        return str(self.row[name])

    def json_text_or_none(self, name: str) -> str | None:
        """`json_text`, if there is some."""
        return None if self.row[name] is None else self.json_text(name)

    def moment(self, name: str) -> datetime:
        """A time."""
        found = moment_in(self.row[name])
        if found is None:
            self.note(name, f"no time ({str(self.row[name])[:40]!r})")
            return NO_TIME
        return found

    def moment_or_none(self, name: str) -> datetime | None:
        """A time, if there is one."""
        return None if self.row[name] is None else self.moment(name)

    def choice[E: StrEnum](self, name: str, kind: type[E], otherwise: E) -> E:
        """One of the words that may stand there."""
        try:
            return kind(self.row[name])
        except ValueError:
            self.note(name, f"no {kind.__name__} ({str(self.row[name])[:40]!r})")
            return otherwise

    def read[T](self, name: str, read: Callable[[dict[str, Any]], T], otherwise: T) -> T:
        """A JSON object as something else reads it, which may refuse it."""
        before = len(self._damage)
        found = self.object(name)
        if len(self._damage) > before:
            return otherwise
        try:
            return read(found)
        except Exception as error:
            self.note(name, f"not what belongs there ({type(error).__name__}: {error})")
            return otherwise

    def note(self, name: str, what: str) -> None:
        """Say what is wrong with a column: what it is instead of what it should be."""
        self._damage.append(f"{self._table}.{name}{self._of} is {what}")

    def _json[T](self, name: str, kind: type[T], empty: T) -> T:
        before = len(self._damage)
        found = self.value(name)
        if isinstance(found, kind):
            return found
        if len(self._damage) == before:
            is_a = _NAMES.get(type(cast("object", found)), "a number or a boolean")
            self.note(name, f"{is_a}, not {_NAMES[kind]}")
        return empty
