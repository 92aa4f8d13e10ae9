"""A disk without room, for a ledger's writes, until several of them have been refused.

Owns how either database comes to refuse; whether anything was lost is `crash.promises`'s.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from crash.world import World
from matrix.volumes import Volume

FULL = "disk full"
SAID_TO_BE_FULL = "disk said to be full"
"""The faults: a file system without room, and PostgreSQL's word for that, from a trigger."""

VOLUME, FILLER = "volume", "filler"

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
    """The disk of a world that `small_disk` has prepared."""
    if world.database.dialect == "sqlite":
        return FileDisk(world)
    named = world.folder / VOLUME
    return SmallVolume(Path(named.read_text())) if named.exists() else ServersDisk(world)


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


class SmallVolume:
    """PostgreSQL's files are on a volume that has no room left: the kernel refuses it new pages."""

    def __init__(self, folder: Path) -> None:
        self._filler = folder / FILLER
        self._refused = 0

    def fill(self) -> None:
        self._count_refusals()
        with self._filler.open("wb", buffering=0) as filler:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while True:
                        filler.write(bytes(size))

    def note(self, name: str) -> None:
        """The server's own answers are counted."""

    def refused(self) -> int:
        return self._refused

    def _count_refusals(self) -> None:
        from psycopg.errors import DiskFull

        disk, made = self, DiskFull.__init__

        def refuse(self: DiskFull, *args: Any, **options: Any) -> None:
            made(self, *args, **options)
            disk._refused += 1
            if disk._refused == REFUSALS:
                disk._filler.unlink()

        DiskFull.__init__ = refuse


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


def make_room(world: World) -> None:
    """There is room again, however few writes were refused: a full volume lets nobody in."""
    named = world.folder / VOLUME
    if named.exists():
        (Path(named.read_text()) / FILLER).unlink(missing_ok=True)


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


@contextmanager
def small_disk(world: World, *, real: bool = True) -> Iterator[str]:
    """Prepare a world for `disk_of`; gives what the fault is called in the table.

    Args:
        real: False for PostgreSQL's word alone, which it then has for updates as well.
    """
    if world.database.dialect == "sqlite":
        yield FULL
        return
    volume = Volume.make(world) if real else None
    if volume is None:
        world.database.execute(_MAKE)
        try:
            yield SAID_TO_BE_FULL
        finally:
            world.database.execute(_UNMAKE)
        return
    named = world.folder / VOLUME
    named.write_text(str(volume.folder))
    try:
        yield FULL
    finally:
        make_room(world)
        volume.remove()
