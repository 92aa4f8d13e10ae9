"""The clock that a world's ledger goes by, to be set while runs are under way.

Owns how it is set on either database; a process's own steady clock stays as it is, as in the
kernel.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from crash.world import World
from durably.ledger.sqlite import database

HOUR = 3600.0

_SERVERS = """
CREATE OR REPLACE FUNCTION durably_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN COALESCE(CAST(NULLIF(current_setting('durably.now', true), '') AS timestamptz),
                statement_timestamp() + make_interval(secs => {seconds}))
"""


def set_clock(world: World, seconds: float) -> None:
    """Set the machine's clock, or the server's, so far from the true time, for everybody."""
    if world.database.dialect == "postgres":
        world.database.execute(_SERVERS.format(seconds=seconds))
    else:
        new = _file(world.folder).with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(_file(world.folder))


def go_by_clock(world: World, ahead_seconds: float = 0.0) -> None:
    """In a process: go by what `set_clock` says, or so far ahead of it."""

    def now() -> datetime:
        file = _file(world.folder)
        seconds = float(file.read_text()) if file.exists() else 0.0
        return datetime.now(UTC) + timedelta(seconds=seconds + ahead_seconds)

    assert database.utc_now() is not None, "it is what a ledger goes by that is given no clock"
    database.utc_now = now


def _file(folder: Path) -> Path:
    return folder / "clock"
