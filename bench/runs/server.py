"""The PostgreSQL server that contestants are measured on, and what it did meanwhile."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg

from support.postgres_run import Run
from support.postgres_server import programs

SETTINGS = {
    "max_connections": 600,
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "wal_keep_size": "512MB",
    # What comes by the clock would hit one contestant and not another.
    "checkpoint_timeout": "1h",
    "autovacuum_naptime": "1h",
}
"""Beyond those of the tests' servers; fsync and synchronous_commit are on in all."""


@dataclass(frozen=True)
class Server:
    """A running server, as the processes that measure it are told of it.

    Attributes:
        url: of its database `postgres`.
        data: its data folder.
        pid: of its first process.
    """

    url: str
    data: str
    pid: int

    def execute(self, sql: str) -> str:
        """The first value of what a statement returns, as text."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return str((cursor.fetchone() or ("",))[0]) if cursor.description else ""

    @contextmanager
    def database(self) -> Generator[str]:
        name = f"bench_{os.urandom(4).hex()}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        try:
            yield urlsplit(self.url)._replace(path=f"/{name}").geturl()
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def cpu(self) -> float:
        """Seconds of all its processes so far, also of those that are over."""
        first = psutil.Process(self.pid)
        times = first.cpu_times()
        seconds = times.user + times.system + times.children_user + times.children_system
        for process in first.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                seconds += sum(process.cpu_times()[:2])
        return seconds

    def position(self) -> str:
        """Where its log of writes ends, everything in it on the disk."""
        return self.execute("SELECT pg_current_wal_flush_lsn()")

    def written(self, since: str) -> tuple[int, int]:
        """The bytes and the commits in its log since a position."""
        now = self.position()
        length = int(self.execute(f"SELECT pg_wal_lsn_diff('{now}', '{since}')::bigint"))
        if length == 0:
            return 0, 0
        said = subprocess.run(
            [
                *(programs() / "pg_waldump", "-p", f"{self.data}/pg_wal", "-s", since, "-e", now),
                *("-r", "Transaction", "--stats=record"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"Transaction/COMMIT\s+(\d+)", said.stdout)
        return length, int(found[1]) if found else 0


@contextmanager
def running() -> Generator[Server]:
    """A server of one's own, which is gone afterwards, also when this process is killed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # A server that is started as root runs as somebody else.
        run = Run(folder / "servers", os.getpid())
        try:
            server = run.new_server("bench")
            server.start(**SETTINGS)
            pid = int((server.data / "postmaster.pid").read_text().split()[0])
            yield Server(server.url(), str(server.data), pid)
        finally:
            run.clean()
