"""A ledger from before there were statistics: what can still be said of its runs is."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from durably.ledger import reads, schema, statistics
from durably.ledger.database import Database
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.sqlite.connection import connect
from durably.ledger.sqlite.database import SqliteDatabase
from durably.ledger.sqlite.schema import split_script

SCRIPT = """
-- Due at once; claimed a minute later, failed after another, and done after a third, at minute 5.
INSERT INTO durably_runs (id, key, agent, queue, state, max_attempts, usage, attempt, failures,
                          cost_nanousd, scheduled_at, inserted_at, finished_at)
VALUES (1, 'tried', 'a', 'q', 'completed', 5,
        '{"input_tokens": 100, "output_tokens": 10, "from_children": {"tokens": 30, "nanousd": 4}}',
        2, 1, 9, 'minute 3', 'minute 0', 'minute 5');
INSERT INTO durably_attempts (run_id, attempt, worker_id, started_at, ended_at)
VALUES (1, 1, 'w', 'minute 1', 'minute 2'), (1, 2, 'w', 'minute 4', 'minute 5');
INSERT INTO durably_messages (run_id, seq, kind, attempt, body, inserted_at)
VALUES (1, 1, 'response', 1, '{"model_name": "old", "provider_name": "p"}', 'minute 2'),
       (1, 3, 'response', 2, '{"model_name": "new", "provider_name": null}', 'minute 5');
-- Never claimed, and cancelled.
INSERT INTO durably_runs (id, key, agent, queue, state, max_attempts, scheduled_at, inserted_at,
                          finished_at)
VALUES (2, 'idle', 'a', 'q', 'cancelled', 5, 'minute 0', 'minute 0', 'minute 5');
-- Delayed by a minute, claimed another later; its attempt is not over.
INSERT INTO durably_runs (id, key, agent, queue, state, max_attempts, attempt, worker_id,
                          scheduled_at, inserted_at)
VALUES (3, 'going', 'a', 'q', 'executing', 5, 1, 'w', 'minute 1', 'minute 0');
INSERT INTO durably_attempts (run_id, attempt, worker_id, started_at)
VALUES (3, 1, 'w', 'minute 2');
"""
OLD = split_script(re.sub(r"minute (\d)", r"2026-03-01T12:0\1:00.000000Z", SCRIPT))


def scripts_before(dialect: str) -> tuple[int, list[str]]:
    """The migrations before the one that brings statistics."""
    known = schema.migrations(dialect)
    version = next(version for version, text in known if "executed_ms" in text) - 1
    return version, [text for number, text in known if number <= version]


async def assert_known(database: Database) -> None:
    tried, idle, going = [await database.read(reads.get_run, k) for k in ("tried", "idle", "going")]
    assert (tried.tokens, tried.own_nanousd, tried.model) == (80, 5, "new")
    assert (tried.waited_ms, tried.executed_ms) == (60_000, 120_000)
    assert (idle.waited_ms, idle.executed_ms, idle.model, idle.tokens) == (None, 0, None, 0)
    assert (going.waited_ms, going.executed_ms) == (60_000, 0)
    asked = await database.read(statistics.look, 3600.0, 1, "model", None, None, None)
    assert {group.name: group.total.runs for group in asked.groups} == {"new": 1, None: 1}
    await database.close()


def clock() -> datetime:
    return datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


async def test_runs_of_an_older_file_are_in_the_statistics(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    version, scripts = scripts_before("sqlite")
    with closing(connect(path, clock)) as connection:
        connection.execute("CREATE TABLE durably_schema (version INTEGER, applied_at TEXT)")
        connection.execute("INSERT INTO durably_schema VALUES (?, 'then')", (version,))
        for statement in [s for script in scripts for s in split_script(script)] + OLD:
            connection.execute(statement)
        # What is damaged is left out, and stops nothing.
        connection.execute("UPDATE durably_runs SET usage = 'no json' WHERE key = 'idle'")
    database = SqliteDatabase(path, clock=clock)
    await database.open()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE durably_runs SET usage = '{}' WHERE key = 'idle'")
        connection.commit()
    await assert_known(database)


async def test_runs_of_an_older_schema_are_in_the_statistics(database_url: str) -> None:
    version, scripts = scripts_before("postgres")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE durably_schema (version integer, ledger_id uuid, applied_at timestamptz)"
        )
        connection.execute(
            "INSERT INTO durably_schema VALUES (%s, gen_random_uuid(), now())", (version,)
        )
        for script in [*scripts, *OLD]:
            connection.execute(script.encode())
    database = PostgresDatabase(database_url, clock=clock)
    await database.migrate()
    await assert_known(database)
