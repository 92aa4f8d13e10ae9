"""Two ledgers, row by row: are they the same, and if not, where do they begin to differ.

Owns the checksum; a canonical row is `tables`' matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from durably.ledger.transfer.tables import Table, Values

ROWS_PER_NEWS = 1000


@dataclass(frozen=True, slots=True)
class Checked:
    """Rows that were read at both ends since the last news."""

    rows: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A table at both ends: what was left, and what is there.

    Attributes:
        checksums: SHA-256 of all rows in the order of their keys.
        differs_at: the key of the first row that is missing, or another; None: all are the same.
    """

    table: str
    rows: tuple[int, int]
    checksums: tuple[str, str]
    differs_at: dict[str, object] | None

    @property
    def same(self) -> bool:
        return self.differs_at is None and self.checksums[0] == self.checksums[1]

    @property
    def difference(self) -> str:
        """Where they begin to differ, for people."""
        key = {name: value for name, value in (self.differs_at or {}).items() if value != ""}
        where = ", ".join(f"{name} {value}" for name, value in key.items())
        return (
            f"{self.table} differ at {where} ({self.rows[0]:,} rows here, {self.rows[1]:,} there)"
        )


def compare(
    table: Table, source: Iterator[Values], target: Iterator[Values]
) -> Generator[Checked, None, Compared]:
    """Read both to their ends, side by side; some news now and then."""
    sums = hashlib.sha256(), hashlib.sha256()
    counts = [0, 0]
    differs_at: Values | None = None
    ours, theirs = next(source, None), next(target, None)
    while ours is not None or theirs is not None:
        if ours != theirs and differs_at is None:
            n = len(table.key)
            differs_at = min(row[:n] for row in (ours, theirs) if row is not None)
        written = b"" if ours is None else _written(ours)
        if ours is not None:
            counts[0] += 1
            sums[0].update(written)
        if theirs is not None:
            counts[1] += 1
            sums[1].update(written if ours == theirs else _written(theirs))
        ours, theirs = next(source, None), next(target, None)
        if max(counts) % ROWS_PER_NEWS == 0:
            yield Checked(ROWS_PER_NEWS)
    yield Checked(max(counts) % ROWS_PER_NEWS)
    return Compared(
        table.name,
        (counts[0], counts[1]),
        (sums[0].hexdigest(), sums[1].hexdigest()),
        None if differs_at is None else dict(zip(table.key, differs_at, strict=True)),
    )


def _written(row: Values) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
