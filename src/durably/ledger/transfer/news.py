"""What a transfer tells while it goes on, as frozen records. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from durably.ledger.transfer.compare import Checked, Compared


@dataclass(frozen=True, slots=True)
class Plan:
    """What a transfer would do, and what is in its way.

    Attributes:
        rows: of each table.
        states: how many runs are in each state.
        makes_tables: there are none at the target.
        began_at: when this transfer began; None if it did not yet.
        finished: it was done before.
        copied_runs: how many runs are there already.
    """

    source: str
    target: str
    rows: dict[str, int]
    states: dict[str, int]
    makes_tables: bool
    began_at: datetime | None
    finished: bool
    copied_runs: int
    obstacles: list[str]


@dataclass(frozen=True, slots=True)
class Begun:
    """The source is marked, and the target takes runs.

    Attributes:
        rows: how many are to be moved, of all tables.
        copied_runs: how many runs an earlier try has copied.
        rows_there: the same in rows.
    """

    source: str
    target: str
    made_tables: bool
    goes_on: bool
    runs: int
    rows: int
    copied_runs: int
    rows_there: int


@dataclass(frozen=True, slots=True)
class Copied:
    """What is at the target since the last news."""

    runs: int
    rows: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """The target cannot be reached; it is tried again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The runs are at the target, which is open for work.

    Attributes:
        already: they were before.
    """

    source: str
    target: str
    already: bool


type News = Begun | Copied | Waiting | Checked | Compared | Moved
