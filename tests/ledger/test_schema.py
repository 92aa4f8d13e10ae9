"""Tables: created once, upgraded in steps, refused when newer; an application's own left alone."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from durably.errors import SchemaError
from durably.ledger import reads, runs, schema
from durably.ledger.sqlite import schema as sqlite_schema
from durably.ledger.sqlite.connection import connect
from durably.ledger.sqlite.database import SqliteDatabase
from support.ledgers import Clock, new_run
from support.processes import all_at_once

VERSIONS = [version for version, _ in schema.migrations("sqlite")]

SECOND = """
-- A column that tells; and a table, with a trigger whose body has semicolons.
ALTER TABLE durably_workers ADD COLUMN note TEXT;
CREATE TABLE durably_notes (id INTEGER PRIMARY KEY, text TEXT) STRICT;
CREATE TRIGGER durably_noted AFTER INSERT ON durably_notes BEGIN
    UPDATE durably_workers SET note = new.text;
    UPDATE durably_workers SET pid = pid + 1;
END;
"""


def tables_of(path: Path) -> dict[tuple[str, str], str]:
    """Every table, index and trigger of the ledger, without comments and layout."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
            " AND name <> 'durably_schema'"
        ).fetchall()
    return {(kind, name): normalised(sql) for kind, name, sql in rows}


def normalised(sql: str) -> str:
    sql = re.sub(r"--[^\n]*", " ", sql)
    return re.sub(r"\s*([(),])\s*", r"\1", re.sub(r"\s+", " ", sql)).strip()


def migrate_one_by_one(path: Path, upto: int | None = None) -> None:
    """A ledger as it has come about over the years: each migration in its turn."""
    with closing(connect(path, Clock())) as connection:
        connection.execute(
            "CREATE TABLE durably_schema (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)"
        )
        for version, script in schema.migrations("sqlite"):
            if upto is None or version <= upto:
                for statement in sqlite_schema.split_script(script):
                    connection.execute(statement)
                connection.execute("INSERT INTO durably_schema VALUES (?, 'then')", (version,))


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT max(version) FROM durably_schema").fetchone()[0]


async def opened(path: Path) -> None:
    database = SqliteDatabase(path)
    await database.open()
    await database.close()


# --- migrations


async def test_migrated_tables_equal_fresh_ones(tmp_path: Path) -> None:
    migrate_one_by_one(tmp_path / "migrated.db")
    await opened(tmp_path / "fresh.db")
    assert tables_of(tmp_path / "migrated.db") == tables_of(tmp_path / "fresh.db")


@pytest.mark.parametrize("version", VERSIONS)
async def test_ledger_of_any_older_version_is_upgraded(tmp_path: Path, version: int) -> None:
    migrate_one_by_one(tmp_path / "old.db", upto=version)
    await opened(tmp_path / "old.db")
    await opened(tmp_path / "fresh.db")
    assert tables_of(tmp_path / "old.db") == tables_of(tmp_path / "fresh.db")
    assert version_of(tmp_path / "old.db") == schema.newest_version("sqlite")


async def test_calls_are_kept_where_their_table_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    migrate_one_by_one(path, upto=7)
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(durably_effects)")]
        connection.execute(
            "INSERT INTO durably_runs (key, agent, queue, state, max_attempts, scheduled_at,"
            " inserted_at) VALUES ('k', 'a', 'q', 'available', 5, '', '')"
        )
        known = {"run_id": 1, "policy": "once", "on_doubt": "ask", "state": "awaiting"}
        known |= {"ask": "approval", "on_expiry": "deny", "asked": 1, "approved": 0}
        numbers = {"response": 3, "call": 1, "attempt": 2}
        row = [(known | numbers).get(name, name) for name in columns]
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO durably_effects VALUES ({marks})", row)
        connection.commit()
    await opened(path)
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(f"SELECT {', '.join(columns)} FROM durably_effects")
        assert [list(one) for one in found] == [row]


@pytest.mark.parametrize("column", ["policy", "on_doubt", "state", "ask", "on_expiry"])
async def test_no_call_says_what_nobody_knows(tmp_path: Path, column: str) -> None:
    path = tmp_path / "ledger.db"
    await opened(path)
    known = {"policy": "once", "on_doubt": "ask", "state": "done", "ask": None, "on_expiry": None}
    with closing(sqlite3.connect(path)) as connection:
        insert = (
            "INSERT INTO durably_effects (run_id, response, call, tool_name, tool_call_id, args,"
            " attempt, idempotency_key, started_at, policy, on_doubt, state, ask, on_expiry)"
            " VALUES (1, ?, 0, 't', 'c', '{}', 1, 'k', '', ?, ?, ?, ?, ?)"
        )
        connection.execute(insert, (0, *known.values()))
        with pytest.raises(sqlite3.IntegrityError, match=f"CHECK constraint failed: {column} = "):
            connection.execute(insert, (1, *(known | {column: "other"}).values()))


def test_migrations_are_numbered_without_gaps() -> None:
    assert list(range(1, len(VERSIONS) + 1)) == VERSIONS


async def test_next_migration_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machinery for migrations to come, with one that does not exist yet."""
    path, newest = tmp_path / "ledger.db", schema.newest_version("sqlite")
    database = SqliteDatabase(path)
    await database.open()
    await database.write(runs.insert, new_run("kept"))
    await database.close()
    _add_migration(monkeypatch, newest + 1, SECOND)

    await database.open()
    assert (await database.read(reads.get_run, "kept")).key == "kept"
    await database.close()
    assert version_of(path) == newest + 1
    assert {"durably_notes", "durably_noted"} <= {name for _, name in tables_of(path)}
    await opened(tmp_path / "fresh.db")
    assert tables_of(path) == tables_of(tmp_path / "fresh.db")


async def test_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, newest = tmp_path / "ledger.db", schema.newest_version("sqlite")
    await opened(path)
    before = tables_of(path)
    _add_migration(monkeypatch, newest + 1, SECOND + "ALTER TABLE nobody ADD COLUMN x TEXT;\n")
    with pytest.raises(sqlite3.OperationalError, match="nobody"):
        await opened(path)
    assert tables_of(path) == before
    assert version_of(path) == newest


def _add_migration(monkeypatch: pytest.MonkeyPatch, version: int, script: str) -> None:
    known, whole = schema.migrations("sqlite"), schema.current_schema("sqlite")
    monkeypatch.setattr(schema, "migrations", lambda _: [*known, (version, script)])
    # The fresh schema has the new column last, where a migration puts it.
    monkeypatch.setattr(schema, "current_schema", lambda _: whole + script)


def test_script_is_split_into_whole_statements() -> None:
    statements = sqlite_schema.split_script(SECOND)
    assert [s.split()[-3:] for s in statements] == [
        ["COLUMN", "note", "TEXT;"],
        ["text", "TEXT)", "STRICT;"],
        ["+", "1;", "END;"],
    ]


def test_script_that_ends_in_the_middle_of_a_statement_is_refused() -> None:
    with pytest.raises(ValueError, match="CREATE INDEX half"):
        sqlite_schema.split_script("CREATE TABLE t (a);\nCREATE INDEX half ON t (a)\n")


# --- versions that do not fit


async def test_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await opened(path)
    newer = schema.newest_version("sqlite") + 1
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO durably_schema VALUES (?, 'later')", (newer,))
        connection.commit()
    with pytest.raises(SchemaError) as refused:
        await opened(path)
    assert str(refused.value) == (
        f"{path} was written by a newer durably (schema {newer}; this version knows {newer - 1}). "
        "Upgrade durably here before using it."
    )


async def test_ledger_whose_tables_were_dropped_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await opened(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE durably_events")
    database = SqliteDatabase(path)
    await database.open()
    with pytest.raises(SchemaError, match="has no durably tables"):
        await database.write(runs.insert, new_run("r"))
    await database.close()


# --- opening


async def test_processes_that_open_a_fresh_file_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    opened_by = await asyncio.to_thread(all_at_once, path, [("open_only",)] * 4)
    assert opened_by == [True] * 4
    assert version_of(path) == schema.newest_version("sqlite")


async def test_threads_that_open_a_fresh_file_at_once_all_succeed(tmp_path: Path) -> None:
    await asyncio.gather(*(opened(tmp_path / "ledger.db") for _ in range(8)))
    assert version_of(tmp_path / "ledger.db") == schema.newest_version("sqlite")


async def test_opening_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    database = SqliteDatabase(path)
    await database.open()
    await database.write(runs.insert, new_run("r"))
    await database.open()
    await database.close()
    await opened(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM durably_schema").fetchone() == (1,)
        assert connection.execute("SELECT key FROM durably_runs").fetchall() == [("r",)]


async def test_applications_own_tables_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "application.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT);"
            "CREATE INDEX runs_name ON runs (name);"
            "INSERT INTO runs (name) VALUES ('theirs');"
            "PRAGMA user_version = 7;"
        )
        theirs = connection.execute("SELECT * FROM sqlite_master").fetchall()
    await opened(path)
    with closing(sqlite3.connect(path)) as connection:
        now = connection.execute("SELECT * FROM sqlite_master").fetchall()
        assert set(theirs) <= set(now)
        assert all(
            row[2].startswith(("durably_", "sqlite_")) for row in now if row not in theirs
        ), "the ledger's tables are prefixed"
        assert connection.execute("SELECT name FROM runs").fetchall() == [("theirs",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)
