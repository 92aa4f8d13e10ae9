"""Owns what `make test` leaves to the targets that take longer; leaves what is proved to the tests.

`make matrix` runs every combination of parameters on PostgreSQL too, tests that are marked
``longer``, and more of hypothesis's examples; `make crash` and `make faults` have samples of
their own kind.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

EVERYTHING = os.environ.get("MATRIX_TESTS") == "all"
"""Whether this is ``make matrix``; otherwise it is a sample."""

THIN = ("agents", "cli")
"""Folders of tests about what is built on the ledger, whatever its database."""

LONGER = {"faults": "FAULT_TESTS", "crash": "CRASH_TESTS", "matrix": "CRASH_TESTS"}
"""What is set to ``all`` for the longer tests of a folder; ``MATRIX_TESTS`` elsewhere."""

POSTGRES = {"pg", "postgres"}
DATABASES = POSTGRES | {"sqlite"}

HEAVY = Path(__file__).with_name("heavy.txt").read_text().splitlines()
"""The files that take longest, the longest first."""


def longer(*values: object) -> Any:
    """A parameter that `make test` leaves out."""
    return pytest.param(*values, marks=pytest.mark.longer)


def examples(count: int) -> int:
    """How many examples hypothesis tries, of as many as ``make matrix`` does."""
    return count if EVERYTHING else max(count // 4, 3)


def left_out(items: list[pytest.Item]) -> set[pytest.Item]:
    """The tests that are not for `make test`."""
    longer = {item for item in items if item.get_closest_marker("longer")}
    again = set[pytest.Item]() if EVERYTHING else _combinations_again(items)
    return {item for item in longer | again if not _asked_for(item)}


def _asked_for(item: pytest.Item) -> bool:
    """Whether this is the target that has all of its folder."""
    return os.environ.get(LONGER.get(item.path.parent.name, "MATRIX_TESTS")) == "all"


def _combinations_again(items: list[pytest.Item]) -> set[pytest.Item]:
    """Of a test on both databases, what PostgreSQL need not repeat: SQLite has all parameters.

    PostgreSQL has every value of each parameter, and of a test about what is built on the ledger
    the first ones.
    """
    seen: dict[tuple[Path, str], set[tuple[str, str]]] = defaultdict(set)
    on_sqlite = {_function(item) for item in items if database(item) == "sqlite"}
    again: set[pytest.Item] = set()
    for item in items:
        if item.get_closest_marker("by_database"):
            continue
        if database(item) in POSTGRES and _function(item) in on_sqlite:
            values = {(name, repr(value)) for name, value in _parameters(item).items()}
            known = seen[_function(item)]
            thin = item.path.parent.name in THIN or item.get_closest_marker("thin")
            if known and (thin or (len(values) > 2 and values <= known)):
                again.add(item)
            known |= values
    return again


def _function(item: pytest.Item) -> tuple[Path, str]:
    return item.path, getattr(item, "originalname", item.name)


def _parameters(item: pytest.Item) -> dict[str, Any]:
    found = getattr(item, "callspec", None)
    return found.params if found else {}


def database(item: pytest.Item) -> str | None:
    """The database that a test is about, if it is one of those that its parameters name."""
    values = _parameters(item).values()
    return next((v for v in values if isinstance(v, str) and v in DATABASES), None)


def heaviest_first(items: list[pytest.Item]) -> None:
    """So that what takes long does not begin when there is nothing left for the other worker."""
    order = {name: number for number, name in enumerate(HEAVY)}
    tests = Path(__file__).parents[1]
    items.sort(key=lambda item: order.get(str(item.path.relative_to(tests)), len(order)))
