"""Where contestants work: SQLite files, and a PostgreSQL server of the benchmark's own.

Owns making and removing them. Everybody's commits are durable: ``synchronous=FULL`` on SQLite is
durably's own, and DBOS's by SQLite's default; PostgreSQL has ``synchronous_commit=on`` and fsync.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from support.postgres_run import Run


class Databases:
    """Makes empty ledgers.

    Args:
        folder: of everything that it makes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run = Run(folder / "servers", os.getpid())
        self._made = 0

    @contextmanager
    def new(self, database: str) -> Generator[str]:
        """The URL of a database that nobody has used; on PostgreSQL with durably's tables."""
        self._made += 1
        if database == "sqlite":
            path = self._folder / f"{self._made}.db"
            yield f"sqlite:///{path}"
            for file in self._folder.glob(f"{path.name}*"):
                file.unlink()
        else:
            postgres = self._run.postgres
            with postgres.database(template=postgres.migrated) as url:
                yield url

    def circumstances(self) -> dict[str, str]:
        """How durable PostgreSQL's commits are, in its own words."""
        with psycopg.connect(self._run.postgres.url) as connection:
            names = ("server_version", "synchronous_commit", "fsync", "wal_sync_method")
            shown = [connection.execute(f"SHOW {name}").fetchall() for name in names]
            return {name: str(rows[0][0]) for name, rows in zip(names, shown, strict=True)}

    def close(self) -> None:
        self._run.clean()


@contextmanager
def databases() -> Generator[Databases]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # A server that is started as root runs as somebody else.
        made = Databases(folder)
        try:
            yield made
        finally:
            made.close()
