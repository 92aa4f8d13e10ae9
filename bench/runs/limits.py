"""What the machine can do at most: commits of either database, and the JSON codec alone."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from pydantic_ai.messages import ModelMessagesTypeAdapter

from runs.measure import cpu
from runs.scripted import NO_LIMITS, PROMPT, agent_for
from runs.server import Server
from runs.workload import Workload
from support.postgres_server import programs

ROW_BYTES = 1000
"""Of a row of which one is committed after the other, as large as a message of most workloads."""


def sqlite_commits(seconds: float) -> float:
    """Commits of one row each a second, one after the other: WAL, synchronous=FULL."""
    with (
        tempfile.TemporaryDirectory() as name,
        closing(sqlite3.connect(Path(name) / "limit.db", isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE rows (text)")
        row = ("x" * ROW_BYTES,)
        done, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds or done < 20:
            connection.execute("INSERT INTO rows VALUES (?)", row)
            done += 1
        return done / took


def postgres_commits(server: Server, clients: int, seconds: float) -> float:
    """The same on PostgreSQL by pgbench, with so many clients at once."""
    with server.database() as url, tempfile.TemporaryDirectory() as name:
        script = Path(name) / "script.sql"
        script.write_text(f"INSERT INTO rows VALUES (repeat('x', {ROW_BYTES}));\n")
        parts = urlsplit(url)
        where = ("-h", str(parts.hostname), "-p", str(parts.port), "-U", str(parts.username))
        database = parts.path.lstrip("/")
        made = "CREATE TABLE rows (text text)"
        subprocess.run(
            [programs() / "psql", *where, "-qc", made, database], check=True, capture_output=True
        )
        said = subprocess.run(
            [
                *(programs() / "pgbench", *where, "-n", "-M", "prepared", "-f", script),
                *("-c", str(clients), "-j", str(min(clients, 2)), "-T", f"{seconds:.0f}", database),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found = re.search(r"tps = ([0-9.]+)", said)
        assert found, said
        return float(found[1])


async def codec(workload: Workload, times: int) -> dict[str, float]:
    """Seconds to write and to read the final history of a run as JSON, and its bytes."""
    result = await agent_for(workload).run(PROMPT, usage_limits=NO_LIMITS)
    messages, data = result.all_messages(), result.all_messages_json()
    dumping = cpu()
    for _ in range(times):
        ModelMessagesTypeAdapter.dump_json(messages)
    loading = cpu()
    for _ in range(times):
        ModelMessagesTypeAdapter.validate_json(data)
    done = cpu()
    return {
        "bytes": len(data),
        "dump": (loading - dumping) / times,
        "load": (done - loading) / times,
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    server = Server(**given["server"])
    seconds = given["seconds"]
    answer = {
        "sqlite_commits": sqlite_commits(seconds),
        "postgres_commits_1": postgres_commits(server, 1, seconds),
        "postgres_commits_50": postgres_commits(server, 50, seconds),
        "codec": asyncio.run(codec(Workload(**given["workload"]), 200)),
    }
    Path(sys.argv[2]).write_text(json.dumps(answer))
