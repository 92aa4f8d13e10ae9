"""Owns which tests are for `make test-long` only, and the sample of them that `make test` has.

Together the two run every test, each once. ``long.txt`` says which are long; a test may be marked
``long`` where it is, too. Which tests are in neither is said in `support.sample`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.sample import database

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Line:
    """What a line says of the tests that it is about.

    Attributes:
        how: ``long``; ``first`` for long but for the first parameters on each database; ``quick``.
        pattern: of their ids, below ``tests/``, with * for anything.
    """

    how: str
    pattern: str

    def is_about(self, test: str) -> bool:
        parts = map(re.escape, self.pattern.split("*"))
        return re.fullmatch(".*".join(parts), test, re.DOTALL) is not None


def read() -> list[Line]:
    """The lines of ``long.txt``."""
    lines = Path(__file__).with_name("long.txt").read_text().splitlines()
    return [Line(*line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def said_of(test: str, lines: list[Line]) -> str:
    """What the last line about a test says of it."""
    return next((line.how for line in reversed(lines) if line.is_about(test)), "quick")


def mark(items: Iterable[pytest.Item]) -> None:
    """Mark the tests that are long."""
    lines = read()
    seen: set[tuple[Path, str, str | None]] = set()
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        test = f"{path}::{item.nodeid.partition('::')[2]}"
        how = said_of(test, lines)
        same = item.path, getattr(item, "originalname", item.name), database(item)
        if how == "long" or (how == "first" and same in seen):
            item.add_marker(pytest.mark.long)
        seen.add(same)
