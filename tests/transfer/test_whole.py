"""What is moved: everything, as it was, and nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from durably.errors import LedgerError
from durably.ledger import decisions, reads, runs, steps
from durably.ledger.connect import database_for
from durably.ledger.queries import load_queries
from durably.ledger.sqlite.moved import GUARDED
from durably.ledger.transfer import news
from durably.ledger.transfer.compare import Compared
from durably.ledger.transfer.move import move
from durably.ledger.transfer.tables import PER_RUN, SHARED
from durably.ledger.written import Step
from durably.lifecycle import RunState
from support.ledgers import Clock, Ledger, SqliteBackend, message, new_run
from support.moving import Contents, contents_of, transfer_process
from support.sample import longer


def select(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(sql.encode()).fetchall()


async def test_every_record_arrives_as_it_was(
    agents: Path, before: Contents, database_url: str
) -> None:
    assert {run.state for run in before.runs} == set(RunState), "a ledger with runs of every kind"
    list(move(str(agents), database_url))
    after = await contents_of(database_url)
    assert [run.key for run in after.runs] == [run.key for run in before.runs]
    assert after == before


async def test_every_table_and_column_is_moved(agents: Path, database_url: str) -> None:
    """A column that a migration adds must be added to the statements that move it."""
    list(move(str(agents), database_url))
    moved = {table.name for table in (*PER_RUN, *SHARED)}
    with closing(sqlite3.connect(agents)) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'durably_%'"
        ).fetchall()
        names = {name.removeprefix("durably_") for (name,) in tables}
        # Workers are processes of the old ledger; the rest is about ledgers, not in them.
        assert names == moved | {"workers", "schema", "moved"}
        assert set(GUARDED) == moved | {"workers"}
        for table in moved:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info(durably_{table})")}
            said = _columns_in("read", table), _columns_in("write", table)
            assert said == (columns, columns), table


def _columns_in(what: str, table: str) -> set[str]:
    text = load_queries("postgres")[f"{what}_{table}"]
    found = re.search(r"SELECT (.*?)\s+FROM" if what == "read" else r"\((.*?)\)", text, re.DOTALL)
    assert found is not None
    return {column.strip() for column in found[1].split(",")}


async def test_runs_that_wait_have_a_job_each_due_when_they_are(
    agents: Path, before: Contents, database_url: str
) -> None:
    list(move(str(agents), database_url))
    waiting = {
        run.key: run.scheduled_at.replace(tzinfo=None)
        for run in before.runs
        if run.state in (RunState.AVAILABLE, RunState.SCHEDULED, RunState.RETRYABLE)
    }
    jobs = select(
        database_url,
        "SELECT j.args ->> 'key', j.scheduled_at, r.key = j.args ->> 'key'"
        " FROM oban_jobs j JOIN durably_runs r ON r.job_id = j.id",
    )
    assert {key: at for key, at, _ in jobs} == waiting
    assert all(own for _, _, own in jobs), "a run knows its own job"
    assert select(database_url, "SELECT count(*) FROM oban_jobs") == [(len(waiting),)]


async def test_what_is_new_comes_after_all_that_there_ever_were(
    agents: Path, before: Contents, database_url: str
) -> None:
    with closing(sqlite3.connect(agents)) as connection:
        ever = dict(connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    assert ever["durably_runs"] > max(run.id for run in before.runs), "some were pruned"
    list(move(str(agents), database_url))
    database = database_for(database_url)
    await database.open()
    run, _ = await database.write(runs.insert, new_run("new"))
    (event,) = await database.read(reads.list_events, run.id, 0, 10)
    waiting = await database.write(decisions.approve, "first suspended", "9.1", None, None, "a", "")
    decision = (await database.read(reads.list_decisions, waiting.id))[-1]
    newest = select(database_url, "SELECT max(id) FROM durably_decisions")
    await database.close()
    assert run.id == ever["durably_runs"] + 1
    assert event.id == ever["durably_events"] + 1
    assert (decision.decision, newest) == ("approved", [(ever["durably_decisions"] + 1,)])


async def test_text_that_postgres_cannot_hold_is_moved_as_it_would_have_been_written_there(
    agents: Path, database_url: str
) -> None:
    with closing(sqlite3.connect(agents)) as connection, connection:
        connection.execute(
            "UPDATE durably_runs SET tags = ?, error = ? WHERE key = 'big'",
            (json.dumps(["a\0b", "half \ud800", "whole \U0001f9fe"]), "broke\0here"),
        )
    list(move(str(agents), database_url))
    (run,) = [run for run in (await contents_of(database_url)).runs if run.key == "big"]
    assert run.tags == ["a\ufffdb", "half \ufffd", "whole \U0001f9fe"]
    assert run.error == "broke\ufffdhere"


def test_a_schema_of_its_own_holds_all_of_it(agents: Path, database_url: str) -> None:
    ended = list(move(str(agents), f"{database_url}?schema=robots"))[-1]
    assert ended == news.Moved(f"sqlite:///{agents}", f"{database_url}?schema=robots", False)
    assert select(database_url, "SELECT to_regclass('durably_runs')") == [(None,)]
    (jobs,) = select(database_url, "SELECT count(*) FROM robots.oban_jobs")
    assert jobs[0] > 0


def test_an_empty_ledger_can_be_moved(tmp_path: Path, database_url: str) -> None:
    path = tmp_path / "empty.db"

    async def make() -> None:
        database = database_for(str(path))
        await database.open()
        await database.close()

    asyncio.run(make())
    *_, moved = move(str(path), database_url)
    assert isinstance(moved, news.Moved)
    assert asyncio.run(contents_of(database_url)).runs == []


@pytest.mark.longer
async def test_memory_does_not_grow_with_a_history(tmp_path: Path, database_url: str) -> None:
    path, megabytes = tmp_path / "big.db", 300
    backend = SqliteBackend(path, Clock())
    await backend.database.open()
    ledger = Ledger(backend, Clock())
    run = await ledger.executing()
    for seq in range(megabytes):
        step = Step(messages=(message(seq, json.dumps("x" * 1_000_000)),))
        await ledger.write(steps.record_step, run.claim, step)
    await backend.database.close()
    process = transfer_process("move", path, database_url)
    said, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, said
    peak = re.search(r"peak: (\d+) MB", said)
    assert peak is not None and int(peak[1]) < megabytes / 2


# --- verifying


TAMPERING = {
    "a message is another": (
        "UPDATE durably_messages SET body = '{}' WHERE run_id = 9 AND seq = 1",
        "messages differ at run_id 9, seq 1 (",
    ),
    "an effect is missing": (
        "DELETE FROM durably_effects WHERE run_id = 2 AND response = 1 AND call = 1",
        "effects differ at run_id 2, response 1, call 1 (",
    ),
    "an event too many": (
        "INSERT INTO durably_events (id, run_id, kind, attempt, at) VALUES (0, 1, 'x', 0, now())",
        "events differ at run_id 1, id 0 (",
    ),
    "a microsecond": (
        "UPDATE durably_runs SET scheduled_at = scheduled_at + interval '1 microsecond'"
        " WHERE id = 4",
        "runs differ at id 4 (",
    ),
    "a space in JSON": (
        "UPDATE durably_runs SET meta = CAST(CAST(meta AS TEXT) || ' ' AS JSON) WHERE id = 5",
        "runs differ at id 5 (",
    ),
    "a tag": (
        "UPDATE durably_runs SET tags = '[\"vip\"]' WHERE id = 6",
        "runs differ at id 6 (",
    ),
    "a yes for a no": (
        "UPDATE durably_effects SET asked = NOT asked WHERE run_id = 3 AND response = 1",
        "effects differ at run_id 3, response 1, call 0 (",
    ),
    "who decided": (
        "UPDATE durably_decisions SET by = 'eve' WHERE id = 1",
        "decisions differ at run_id ",
    ),
    "an approval": (
        "UPDATE durably_effects SET approved = FALSE WHERE approved AND ask = 'approval'",
        "effects differ at run_id ",
    ),
    "a space in what is asked": (
        "UPDATE durably_effects SET request = CAST(CAST(request AS TEXT) || ' ' AS JSON)"
        " WHERE request IS NOT NULL",
        "effects differ at run_id ",
    ),
    "a queue": ("DELETE FROM durably_queues WHERE queue = 'night'", "queues differ at queue night"),
    "a job": ("DELETE FROM oban_jobs WHERE args ->> 'key' = 'not begun'", "jobs differ at run_id "),
}


ALIKE = ("an effect is missing", "a tag", "an approval", "a space in what is asked")
"""What is compared as something else in the list is."""


@pytest.mark.parametrize("what", [longer(w) if w in ALIKE else w for w in TAMPERING])
def test_what_is_not_the_same_is_found_and_not_opened(
    what: str, agents: Path, database_url: str
) -> None:
    sql, said = TAMPERING[what]
    moving = move(str(agents), database_url)
    for step in moving:
        if isinstance(step, news.Copied) and step.runs < 7:
            break  # The last of them; nothing is compared yet.
    with psycopg.connect(database_url, options="-c session_replication_role=replica") as other:
        assert other.execute(sql.encode()).rowcount > 0
    tables: list[Compared] = []
    with pytest.raises(LedgerError) as refused:
        tables.extend(step for step in moving if isinstance(step, Compared))
    assert said in str(refused.value)
    with pytest.raises(LedgerError, match="is not complete"):
        asyncio.run(contents_of(database_url))
    # It is looked at again each time, and never opened by itself.
    with pytest.raises(LedgerError, match=re.escape(said)):
        list(move(str(agents), database_url))
