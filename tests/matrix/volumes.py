"""A volume of its own for one of PostgreSQL's databases, so small that it can be full.

Owns making it, where that is possible: it takes Linux, root, and a server on this machine.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crash.databases import PostgresDatabase
from support.postgres_server import hand_over

if TYPE_CHECKING:
    from crash.world import World

MEGABYTES = 64
"""Several times what the database of one run takes."""

_ROOMY = """
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables
                WHERE schemaname = 'public' AND tablename ~ '^(durably|oban)_' LOOP
        EXECUTE format('ALTER TABLE %I {} (fillfactor{})', name);
    END LOOP;
END $$
"""


class Volume:
    """A file system in memory, with a world's database on it.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, world: World, folder: Path, name: str) -> None:
        self.folder = folder
        self._world = world
        self._name = name

    @classmethod
    def make(cls, world: World) -> Volume | None:
        """Move the world's database to a new one; None where that is not possible."""
        import psycopg

        if sys.platform != "linux" or os.geteuid() != 0:
            return None
        name = f"small_{secrets.token_hex(4)}"
        folder = Path(tempfile.mkdtemp(prefix=f"durably-{name}-"))
        volume = cls(world, folder, name)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", name, str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            folder.rmdir()  # In a container that may not.
            return None
        hand_over(folder)
        try:
            volume._server.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")
        except psycopg.Error:  # The server is elsewhere.
            volume._unmount()
            return None
        volume._server.execute(f"ALTER DATABASE {volume._database} SET TABLESPACE {name}")
        # Pages count as full early: what is inserted soon needs a new one.
        world.database.execute(_ROOMY.format("SET", " = 10"))
        return volume

    def remove(self) -> None:
        """Move the database back, and leave nothing."""
        self._world.database.wait_until_left()
        self._world.database.execute(_ROOMY.format("RESET", ""))
        self._server.execute(f"ALTER DATABASE {self._database} SET TABLESPACE pg_default")
        self._server.execute(f"DROP TABLESPACE {self._name}")
        self._unmount()

    @property
    def _database(self) -> str:
        return self._world.url.partition("?")[0].rpartition("/")[2]

    @property
    def _server(self) -> PostgresDatabase:
        return PostgresDatabase(self._world.url.partition("?")[0].rpartition("/")[0] + "/postgres")

    def _unmount(self) -> None:
        subprocess.run(["umount", self.folder], check=True)
        self.folder.rmdir()
