"""Rows of the final table: what was to be, and what was found.

Pure; which rows there are is the verdict's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from durably.demo.tickets import money


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the final table."""

    what: str
    expected: str
    found: str
    source: str
    ok: bool


def equal(what: str, expected: int, found: int, source: str) -> Check:
    """A row that is right if both numbers are the same."""
    return Check(what, str(expected), str(found), source, expected == found)


def amounts(cents: Collection[int]) -> str:
    """How many amounts, and their sum."""
    return f"{len(cents)}, {money(sum(cents))}"
