"""A process of its own that uses a ledger: ``python ledger_process.py COMMAND URL ARGS``.

Says ``ready``, waits for a line on stdin, works, and prints one JSON line as its result. So a test
has all of its processes started before any of them begins.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import Awaitable, Callable

from durably.errors import TransitionRefused
from durably.ledger import attempts, decisions, runs, steps, workers
from durably.ledger.connect import database_for
from durably.ledger.database import Database
from durably.ledger.sqlite.database import SqliteDatabase
from durably.ledger.written import NewMessage, Step
from durably.lifecycle import EffectState
from durably.records import NewRun


async def open_only(database: Database) -> object:
    """Create the tables, or find them."""
    await database.open()
    return True


async def migrate(database: Database) -> object:
    """Create the tables, or find them; also on PostgreSQL."""
    await database.migrate()
    return True


async def insert(database: Database, name: str, count: str) -> object:
    """Insert runs, concurrently; returns the keys that were acknowledged."""
    await database.open()
    new = [NewRun(key=f"{name}-{i}", agent="a", prompt='"hi"') for i in range(int(count))]
    acknowledged = await asyncio.gather(*(database.write(runs.insert, run) for run in new))
    return [run.key for run, created in acknowledged if created]


async def work(database: Database, worker_id: str, batch: str) -> object:
    """Claim, checkpoint and complete until nothing is left; returns what was claimed, in order."""
    await database.open()
    await database.write(workers.register, worker_id, worker_id, 1, {"agents": 20}, 600.0)
    claimed: list[tuple[str, int]] = []
    while found := await database.write(attempts.claim, worker_id, "agents", int(batch)):
        for run in found:
            claimed.append((run.key, run.attempt))
            step = Step(messages=(NewMessage(0, "request", json.dumps(worker_id)),))
            await database.write(steps.record_step, run.claim, step)
            await database.write(attempts.complete, run.claim, '"x"', Step())
    return claimed


async def resolve(database: Database, person: str, key: str, call_id: str) -> object:
    """Decide about a call; returns whether the decision was accepted."""
    await database.open()
    try:
        await database.write(
            decisions.resolve, key, call_id, EffectState.DONE, "{}", None, person, ""
        )
    except TransitionRefused:
        return False
    return True


async def lock(database: Database) -> object:
    """Hold SQLite's write lock until another line comes."""
    assert isinstance(database, SqliteDatabase)
    connection = sqlite3.connect(database.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    print("locked", flush=True)
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()
    return True


COMMANDS: dict[str, Callable[..., Awaitable[object]]] = {
    f.__name__: f for f in (open_only, migrate, insert, work, resolve, lock)
}


async def main(command: str, url: str, *args: str) -> None:
    database = database_for(url)
    print("ready", flush=True)
    sys.stdin.readline()
    result = await COMMANDS[command](database, *args)
    await database.close()
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
