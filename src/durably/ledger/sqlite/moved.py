"""The mark in a file whose runs were moved to another database: made, obeyed, taken back.

Owns the mark and the triggers that hold everybody to it; moving is `durably.ledger.transfer`'s.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from durably.errors import LedgerError, LedgerMoved
from durably.ledger.columns import moment, timestamp
from durably.ledger.sqlite.connection import begin_immediate

GUARDED = (
    *("runs", "inputs", "messages", "effects", "decisions", "signals", "notices"),
    *("attempts", "events", "queues", "budgets", "actions", "workers"),
)


class Stage(StrEnum):
    """How far a move is, as the file that is left behind knows it."""

    COPYING = "copying"
    """Nobody can work on the copy."""
    OPENING = "opening"
    """The copy is verified, and may be in use."""
    MOVED = "moved"
    """The copy is in use."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the runs of a file were moved.

    Attributes:
        url: as it may be shown, without a password.
        ledger_id: the other ledger's own identity; URLs may be written in many ways.
    """

    transfer_id: str
    url: str
    ledger_id: str
    moved_at: datetime
    stage: Stage = Stage.COPYING

    def sentence(self, path: Path) -> str:
        """What somebody who opens the file is told."""
        if self.stage is Stage.MOVED:
            return self.order(path)
        return (
            f"{path} is being moved to {self.url}, since {self.moved_at:%Y-%m-%d %H:%M} UTC: run "
            "that `durably transfer` again to finish it, or with --undo to take it back."
        )

    def order(self, path: Path) -> str:
        """What somebody is told who writes to a file that they had open already."""
        when = f"{self.moved_at:%Y-%m-%d %H:%M} UTC"
        return f"{path} was moved to {self.url} on {when}; use that URL."


def find_mark(connection: sqlite3.Connection) -> Mark | None:
    """The mark of a file; None if it has none, or is older than the table of marks."""
    known = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'durably_moved'"
    ).fetchone()
    row = (
        known
        and connection.execute(
            "SELECT transfer_id, url, ledger_id, moved_at, stage FROM durably_moved"
        ).fetchone()
    )
    if not row:
        return None
    return Mark(row[0], row[1], row[2], moment(row[3]), Stage(row[4]))


def refuse_moved(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse to work on what was left behind.

    Raises:
        LedgerMoved: the file has a mark.
    """
    mark = find_mark(connection)
    if mark is not None:
        raise LedgerMoved(mark.sentence(path))


@contextmanager
def marking(connection: sqlite3.Connection) -> Generator[None]:
    """A transaction alone with the file, so that a worker registers before the mark or not."""
    begin_immediate(connection)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def set_mark(connection: sqlite3.Connection, mark: Mark, path: Path) -> None:
    """Mark the file: from the commit on nothing is written to its tables, by nobody.

    Triggers, because a process that has the file open does not look at the mark again. They are
    made only now: in a ledger in use they would cost something at every write.
    """
    connection.execute(
        "INSERT INTO durably_moved (one, transfer_id, url, ledger_id, stage, moved_at) "
        "VALUES (1, ?, ?, ?, ?, ?)",
        (mark.transfer_id, mark.url, mark.ledger_id, mark.stage, timestamp(mark.moved_at)),
    )
    order = mark.order(path).replace("'", "''")
    for name, verb, table in _triggers():
        connection.execute(
            f"CREATE TRIGGER {name} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{order}'); END"
        )


def set_stage(connection: sqlite3.Connection, transfer_id: str, stage: Stage) -> None:
    """Note how far the move is.

    Raises:
        LedgerError: the mark was taken back meanwhile.
    """
    changed = connection.execute(
        "UPDATE durably_moved SET stage = ? WHERE transfer_id = ?", (stage, transfer_id)
    )
    if changed.rowcount != 1:
        raise LedgerError("The transfer was taken back meanwhile; nothing more was done.")


def remove_mark(connection: sqlite3.Connection) -> None:
    """Let everybody work on the file again."""
    for name, _, _ in _triggers():
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
    connection.execute("DELETE FROM durably_moved")


def _triggers() -> Generator[tuple[str, str, str]]:
    """Name, statement and table of each; a worker that leaves may say so."""
    for table in GUARDED:
        for verb in ("INSERT", "UPDATE", "DELETE"):
            if (table, verb) != ("workers", "DELETE"):
                yield f"durably_moved_{table}_{verb.lower()}", verb, f"durably_{table}"
