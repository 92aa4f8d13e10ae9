"""What was done to a SQLite file: its commits, counted from outside, and what is in it."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

WAL_HEADER, FRAME_HEADER = 32, 24


def stored(file: Path) -> int:
    """Bytes of the pages in use, also of those that only its log has so far."""
    with closing(sqlite3.connect(file)) as connection:
        pages, free, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


def unused(file: Path) -> int | None:
    """Bytes of those pages that hold nothing; None if this SQLite was built without dbstat."""
    with closing(sqlite3.connect(file)) as connection:
        try:
            return int(connection.execute("SELECT sum(unused) FROM dbstat").fetchone()[0])
        except sqlite3.OperationalError:
            return None


def journal_mode(file: Path) -> str:
    with closing(sqlite3.connect(file)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


class Commits:
    """Counts the commits to a file, exactly.

    It reads meanwhile, and so keeps the log from starting anew. For that reason nothing is timed
    beside it: readers that stay make logs long. Between making one and `begin` something has to be
    written, so that there is a log to hold on to.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._log = file.with_name(file.name + "-wal")
        self._reader = sqlite3.connect(file, isolation_level=None)
        self._reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._salt: bytes | None = None
        self._seen = 0

    def begin(self) -> None:
        self._reader.execute("BEGIN")
        self._reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._salt, self._seen = self._now()
        if self._salt is None:
            self._reader.execute("COMMIT")  # Without a log, readers keep writers out.

    def since(self) -> int:
        """Commits since the last look.

        Raises:
            RuntimeError: the log was started anew in spite of the reader.
        """
        salt, seen = self._now()
        if salt != self._salt:
            raise RuntimeError(f"The log of {self._file.name} was started anew meanwhile.")
        before, self._seen = self._seen, seen
        return seen - before

    def _now(self) -> tuple[bytes | None, int]:
        """The salt of the log and the commits in it; without a log, the file's own counter."""
        if not self._log.exists() or self._log.stat().st_size == 0:
            with self._file.open("rb") as file:
                return None, int(struct.unpack(">I", file.read(28)[24:28])[0])
        data = self._log.read_bytes()
        size = struct.unpack(">I", data[8:12])[0]
        salt, commits = data[16:24], 0
        for at in range(WAL_HEADER, len(data) - FRAME_HEADER - size + 1, FRAME_HEADER + size):
            if data[at + 8 : at + 16] != salt:
                break
            commits += data[at + 4 : at + 8] != b"\0\0\0\0"
        return salt, commits
