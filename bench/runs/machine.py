"""On what it was measured: the machine, without its name, and the versions of everything."""

from __future__ import annotations

import os
import platform
import sqlite3
import tempfile
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runs.server import Server

DISTRIBUTIONS = (
    *("durably", "pydantic-ai-slim", "psycopg", "oban", "dbos", "absurd-sdk"),
    *("pydantic-ai-harness", "langgraph", "langgraph-checkpoint-sqlite"),
    *("langgraph-checkpoint-postgres",),
)


def machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    memory = os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": str(os.cpu_count()),
        "CPU": model or platform.machine(),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "files on": file_system(Path(tempfile.gettempdir())),
        "load at start": f"{os.getloadavg()[0]:.1f}",
    }


def versions(server: Server) -> dict[str, str]:
    settings = ", ".join(
        f"{name} {server.execute(f'SHOW {name}')}" for name in ("fsync", "synchronous_commit")
    )
    with closing(sqlite3.connect(":memory:")) as connection:
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    found = {
        "Python": platform.python_version(),
        "SQLite": f"{sqlite3.sqlite_version}, synchronous {synchronous} (2 is FULL) by default",
        "PostgreSQL": f"{server.execute('SHOW server_version')}, {settings}",
    }
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    above = [(path, kind) for path, kind in mounts if folder.resolve().is_relative_to(path)]
    return max(above, key=lambda mount: len(mount[0]))[1] if above else "unknown"


def use_a_disk() -> None:
    """Have temporary files on a disk if there is one: in memory, commits cost nothing."""
    for name in (tempfile.gettempdir(), "/var/tmp"):
        if os.access(name, os.W_OK) and file_system(Path(name)) not in ("tmpfs", "ramfs"):
            os.environ["TMPDIR"] = tempfile.tempdir = name
            return
