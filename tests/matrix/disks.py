"""A disk without room, for a ledger's writes, until several of them have been refused.

Owns how either database comes to refuse; whether anything was lost is `crash.promises`'s.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Protocol

from crash.world import World

REFUSALS = 4
"""After so many there is room again."""


class Disk(Protocol):
    def fill(self) -> None:
        """From now on there is no room."""
        ...

    def note(self, name: str) -> None:
        """A boundary is reached."""
        ...

    def refused(self) -> int:
        """How many writes."""
        ...


def disk_of(world: World) -> Disk:
    return ServersDisk(world) if world.database.dialect == "postgres" else FileDisk(world)


class FileDisk:
    """SQLite's files may not grow: the kernel refuses what is written beyond their length."""

    def __init__(self, world: World) -> None:
        self._log = Path(world.url.removeprefix("sqlite:///") + "-wal")
        self._begun = self._done = 0
        self._full = False

    def fill(self) -> None:
        self._full = True
        self._begun = self._done = 0
        self._limit(self._log.stat().st_size)

    def note(self, name: str) -> None:
        if not self._full:
            return
        self._begun += name in ("commit:before", "transaction:before_commit")
        self._done += name in ("commit:after", "transaction:after_commit")
        if self.refused() > REFUSALS:
            self._limit(resource.RLIM_INFINITY)

    def refused(self) -> int:
        return self._begun - self._done

    def _limit(self, size: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


class ServersDisk:
    """PostgreSQL refuses every write of the ledger's, and Oban's, with its word for a full disk.

    What a tool writes by itself is not refused: that would be the failure of a tool.
    """

    def __init__(self, world: World) -> None:
        self._database = world.database

    def fill(self) -> None:
        self._database.execute("INSERT INTO full_disk VALUES (TRUE)")

    def note(self, name: str) -> None:
        """The server counts by itself."""

    def refused(self) -> int:
        (row,) = self._database.rows("SELECT last_value, is_called FROM refused_writes")
        return row["last_value"] if row["is_called"] else 0


_MAKE = f"""
CREATE TABLE full_disk (since boolean);
CREATE SEQUENCE refused_writes;
CREATE FUNCTION refuse_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM full_disk) AND nextval('refused_writes') <= {REFUSALS} THEN
        RAISE EXCEPTION 'could not extend file: No space left on device'
            USING ERRCODE = 'disk_full';
    END IF;
    RETURN NULL;
END $$;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables
                WHERE schemaname = 'public' AND tablename ~ '^(durably|oban)_' LOOP
        EXECUTE format('CREATE TRIGGER refuse_write AFTER INSERT OR UPDATE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION refuse_write()', name);
    END LOOP;
END $$
"""

_UNMAKE = """
DROP FUNCTION refuse_write CASCADE; DROP TABLE full_disk; DROP SEQUENCE refused_writes
"""


def make_disk(world: World) -> None:
    """Prepare a world for `Disk`; `unmake_disk` before another one has its database."""
    if world.database.dialect == "postgres":
        world.database.execute(_MAKE)


def unmake_disk(world: World) -> None:
    if world.database.dialect == "postgres":
        world.database.execute(_UNMAKE)
