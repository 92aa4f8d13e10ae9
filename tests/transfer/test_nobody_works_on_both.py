"""Whoever has either ledger open, or opens it, while runs are moved: refused, with where to go."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic_ai import Agent

from durably import Durably
from durably.errors import LedgerError, LedgerMoved, SchemaError
from durably.ledger import attempts, decisions, evidence, queues, runs, steps, workers
from durably.ledger.connect import database_for
from durably.ledger.database import Database
from durably.ledger.sqlite.database import SqliteDatabase
from durably.ledger.transfer import news
from durably.ledger.transfer.move import move, plan, take_back
from durably.ledger.written import Step
from durably.lifecycle import EffectState
from support.ledgers import done, message, new_run, tool_call
from support.moving import Contents, contents_of

type Write = Callable[[Database, Any], Awaitable[object]]

WRITES: dict[str, Write] = {
    "enqueue": lambda db, _: db.write(runs.insert, new_run("late")),
    "claim": lambda db, _: db.write(attempts.claim, "w9", "agents", 5),
    "register": lambda db, _: db.write(workers.register, "w9", "w9", 1, {"agents": 1}, 30.0),
    "beat": lambda db, _: db.write(workers.register, "w1", "w1", 1, {"agents": 1}, 30.0),
    "checkpoint": lambda db, run: db.write(
        steps.record_step, run.claim, Step(messages=(message(3),))
    ),
    "intent": lambda db, run: db.write(steps.record_intent, run.claim, tool_call(11)),
    "outcome": lambda db, run: db.write(steps.record_outcome, run.claim, done(tool_call(12))),
    "complete": lambda db, run: db.write(attempts.complete, run.claim, "1", Step()),
    "hand back": lambda db, run: db.write(attempts.hand_back, run.claim, Step()),
    "late evidence": lambda db, run: db.write(evidence.settle_late, run.claim, done(tool_call(9))),
    "late withdrawal": lambda db, run: db.write(
        evidence.withdraw_late, run.claim, tool_call(9), "not sent"
    ),
    "cancel": lambda db, run: db.write(runs.cancel, run.key, "ana"),
    "resolve": lambda db, _: db.write(
        decisions.resolve, "first suspended", "9.0", EffectState.DONE, "1", None, "ana", ""
    ),
    "revive": lambda db, _: db.write(runs.revive, "first cancelled", "ana"),
    "rescue": lambda db, _: db.write(attempts.rescue),
    "prune": lambda db, _: db.write(runs.prune, 0.0, None, 10),
    "pause": lambda db, _: db.write(queues.pause, "agents"),
    "resume": lambda db, _: db.write(queues.resume, "night"),
}


def begin(source: object, target: str) -> Any:
    """A transfer that has copied some."""
    moving = move(str(source), target)
    while not isinstance(next(moving), news.Copied):
        pass
    return moving


# --- the old ledger


async def test_what_has_the_old_ledger_open_cannot_write_to_it_any_more(
    agents: Path, before: Contents, database_url: str
) -> None:
    database = SqliteDatabase(agents)
    await database.open()
    (run,) = [run for run in before.runs if run.key == "first executing"]
    list(move(str(agents), database_url))
    with closing(sqlite3.connect(agents)) as connection:
        commits = "PRAGMA data_version"  # another one after each commit of anybody else
        left = connection.execute(commits).fetchone()
        for name, write in WRITES.items():
            with pytest.raises(LedgerMoved) as refused:
                await write(database, run)
            shown = re.escape(f"{agents} was moved to {database_url} on ")
            said = shown + r"[\d-]+ [\d:]+ UTC; use that URL\."
            assert re.fullmatch(said, str(refused.value)), name
            assert connection.execute(commits).fetchone() == left, name
    await database.close()
    assert await contents_of(database_url) == before


async def test_what_has_the_old_ledger_open_may_read_and_leave(
    agents: Path, database_url: str
) -> None:
    database = SqliteDatabase(agents)
    await database.open()
    await database.write(workers.register, "w9", "w9", 1, {"agents": 1}, 0.0)
    list(move(str(agents), database_url))
    await database.write(workers.remove, "w9")
    await database.close()


async def test_enqueuing_in_an_applications_own_transaction_is_refused(
    agents: Path, database_url: str
) -> None:
    echo = Agent("test", name="echo")
    app = Durably(f"sqlite:///{agents}", agents=[echo])
    await app.open()
    list(move(str(agents), database_url))
    with closing(sqlite3.connect(agents)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
        connection.execute("INSERT INTO orders VALUES (1)")
        with pytest.raises(LedgerMoved, match="use that URL"):
            await app.enqueue(echo, "hello", key="late", conn=connection)
        connection.commit()  # What is the application's own is not the transfer's business.
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1,)
    await app.close()


async def test_opening_the_old_ledger_is_refused_with_where_it_went(
    agents: Path, database_url: str
) -> None:
    moving = begin(agents, database_url)
    for done_ in (False, True):
        with pytest.raises(LedgerMoved) as refused:
            await database_for(str(agents)).open()
        assert f"moved to {database_url}" in str(refused.value)
        assert ("use that URL" in str(refused.value)) == done_
        assert ("--undo" in str(refused.value)) != done_
        list(moving)


async def test_plain_sql_cannot_change_the_old_ledger_either(
    agents: Path, database_url: str
) -> None:
    list(move(str(agents), database_url))
    with closing(sqlite3.connect(agents)) as connection:
        for sql in (
            "UPDATE durably_runs SET state = 'available', worker_id = NULL",
            "DELETE FROM durably_messages",
            "INSERT INTO durably_events (run_id, kind, attempt, at) VALUES (1, 'x', 0, 'now')",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="use that URL"):
                connection.execute(sql)


async def test_a_ledger_that_was_taken_back_is_as_quick_and_free_as_before(
    agents: Path, database_url: str
) -> None:
    begin(agents, database_url).close()
    take_back(str(agents), database_url)
    with closing(sqlite3.connect(agents)) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        assert triggers.fetchall() == []
    database = SqliteDatabase(agents)
    await database.open()
    await WRITES["enqueue"](database, None)
    await database.close()


async def test_live_workers_of_the_old_ledger_are_named_with_how_to_stop_them(
    agents: Path, before: Contents, database_url: str
) -> None:
    database = SqliteDatabase(agents)
    await database.open()
    for number in (1, 2):
        await database.write(
            workers.register, f"h{number}:1:x", f"host{number}", number, {"agents": 1}, 600.0
        )
    said = (
        f"2 workers are alive on {agents}: stop first what executes runs there, `kill -TERM 1` on "
        "host1, `kill -TERM 2` on host2; one that died without a word counts as alive until "
    )
    assert plan(str(agents), database_url).obstacles[0].startswith(said)
    with pytest.raises(LedgerError, match=re.escape(said)):
        list(move(str(agents), database_url))
    # Nothing was begun: the ledger is in use as before, and there are no tables.
    await database.write(workers.remove, "h1:1:x")
    with pytest.raises(LedgerError, match="A worker is alive"):
        list(move(str(agents), database_url))
    with pytest.raises(SchemaError):
        await contents_of(database_url)
    await database.write(workers.remove, "h2:1:x")
    await database.close()
    list(move(str(agents), database_url))
    assert await contents_of(database_url) == before


async def test_a_worker_that_registers_at_the_last_moment_wins(
    agents: Path, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look and the mark: no mark is made, and the target is as it was."""
    from durably.ledger.transfer.source import Source

    database = SqliteDatabase(agents)
    await database.open()
    look = Source.obstacles

    def then_register(source: Source) -> list[str]:
        found = look(source)
        register = ("w9", "host9", 9, {"agents": 1}, 600.0)
        database.write_blocking(workers.register, *register)
        return found

    monkeypatch.setattr(Source, "obstacles", then_register)
    with pytest.raises(LedgerError, match="A worker is alive"):
        list(move(str(agents), migrated_url))
    await database.write(runs.insert, new_run("still in use"))
    await database.close()
    assert (await contents_of(migrated_url)).runs == []


async def test_a_key_that_postgres_cannot_hold_is_in_the_way(
    agents: Path, database_url: str
) -> None:
    """Another key would make other idempotency keys."""
    with closing(sqlite3.connect(agents)) as connection, connection:
        connection.execute("UPDATE durably_runs SET key = ? WHERE key = 'big'", ("b\0g",))
    with pytest.raises(LedgerError, match=r"Run 'b\\x00g' has a NUL in its key"):
        list(move(str(agents), database_url))
    await contents_of(str(agents))


# --- the new ledger


async def test_what_has_the_new_ledger_open_cannot_write_before_it_is_complete(
    agents: Path, before: Contents, migrated_url: str
) -> None:
    writes = [WRITES[w] for w in ("enqueue", "register", "pause", "resolve", "prune", "cancel")]
    database = database_for(migrated_url)
    await database.open()
    moving = begin(agents, migrated_url)
    for write in writes:
        with pytest.raises(LedgerMoved, match="is not complete"):
            await write(database, before.runs[-1])
    list(moving)
    assert await contents_of(migrated_url) == before
    for write in reversed(writes):
        await write(database, before.runs[-1])
    await database.close()


async def test_opening_the_new_ledger_is_refused_until_it_is_complete(
    agents: Path, database_url: str
) -> None:
    moving = begin(agents, database_url)
    with pytest.raises(LedgerMoved) as refused:
        await database_for(database_url).open()
    begun = re.escape(
        f"{database_url} is not complete: sqlite:///{agents} is being moved here, since "
    )
    assert re.match(begun + r"[\d-]+ [\d:]+ UTC; run that `durably transfer`", str(refused.value))
    list(moving)
    await contents_of(database_url)


async def test_jobs_of_half_a_ledger_are_claimed_by_nobody(agents: Path, migrated_url: str) -> None:
    """Also not by a worker that was frozen when the transfer looked for live ones."""
    database = database_for(migrated_url)
    await database.open()
    await database.write(workers.register, "w9", "w9", 1, {"agents": 1}, 0.0)
    moving = begin(agents, migrated_url)
    with pytest.raises(LedgerMoved):
        await database.write(attempts.claim, "w9", "agents", 5)
    await database.write(workers.remove, "w9")
    await database.close()
    list(moving)


async def test_a_live_worker_of_the_new_ledger_is_in_the_way(
    agents: Path, migrated_url: str
) -> None:
    database = database_for(migrated_url)
    await database.open()
    await database.write(workers.register, "w9", "host9", 9, {"agents": 1}, 600.0)
    with pytest.raises(LedgerError, match=r"A worker is alive on postgres.*kill -TERM 9` on host9"):
        list(move(str(agents), migrated_url))
    await database.write(workers.remove, "w9")
    await database.close()
    list(move(str(agents), migrated_url))


@pytest.mark.parametrize(
    ("write", "said"), [("enqueue", "holds runs already"), ("pause", "queues that were paused")]
)
async def test_a_ledger_that_is_in_use_takes_no_other(
    write: str, said: str, agents: Path, before: Contents, migrated_url: str
) -> None:
    database = database_for(migrated_url)
    await database.open()
    await WRITES[write](database, None)
    await database.close()
    with pytest.raises(LedgerError, match=said):
        list(move(str(agents), migrated_url))
    assert said in " ".join(plan(str(agents), migrated_url).obstacles)
    assert await contents_of(str(agents)) == before, "and nothing was marked"


async def test_a_ledger_that_takes_one_takes_no_other(
    agents: Path, before: Contents, made: Path, tmp_path: Path, database_url: str
) -> None:
    other = shutil.copy(made, tmp_path / "other.db")
    moving = begin(agents, database_url)
    with pytest.raises(LedgerError, match=f"sqlite:///{re.escape(str(agents))} is being moved"):
        list(move(str(other), database_url))
    assert await contents_of(str(other)) == before
    list(moving)
    with pytest.raises(LedgerError, match="holds runs already"):
        list(move(str(other), database_url))
    assert await contents_of(str(other)) == before


async def test_jobs_of_others_in_the_same_schema_stay(agents: Path, migrated_url: str) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("INSERT INTO oban_jobs (worker) VALUES ('Mailer')")
        begin(agents, migrated_url).close()
        take_back(str(agents), migrated_url)
        left = connection.execute("SELECT worker FROM oban_jobs").fetchall()
    assert left == [("Mailer",)]


async def test_a_transfer_into_older_tables_asks_for_migrate(
    agents: Path, before: Contents, migrated_url: str
) -> None:
    with psycopg.connect(migrated_url) as connection:
        connection.execute("UPDATE durably_schema SET version = version + 1")
    with pytest.raises(SchemaError, match="upgrade durably here first"):
        list(move(str(agents), migrated_url))
    assert await contents_of(str(agents)) == before


# --- looking


async def test_a_dry_run_changes_nothing(agents: Path, before: Contents, database_url: str) -> None:
    found = plan(str(agents), database_url)
    assert (found.makes_tables, found.obstacles, found.began_at) == (True, [], None)
    assert found.rows["runs"] == sum(found.states.values()) == len(before.runs)
    assert found.rows["events"] == sum(len(d[-1]) for d in before.details.values())
    with psycopg.connect(database_url) as connection:
        known = connection.execute("SELECT to_regclass('durably_runs')").fetchone()
    assert known == (None,)
    assert await contents_of(str(agents)) == before


async def test_a_dry_run_says_how_far_a_transfer_is(agents: Path, database_url: str) -> None:
    moving = begin(agents, database_url)
    found = plan(str(agents), database_url)
    assert (found.finished, found.copied_runs, found.obstacles) == (False, 7, [])
    assert found.began_at is not None and (datetime.now(UTC) - found.began_at).seconds < 600
    list(moving)
    found = plan(str(agents), database_url)
    assert (found.finished, found.copied_runs, found.obstacles) == (True, found.rows["runs"], [])


async def test_a_finished_transfer_can_be_run_again_and_does_nothing(
    agents: Path, before: Contents, database_url: str
) -> None:
    list(move(str(agents), database_url))
    (again,) = move(str(agents), database_url)
    assert isinstance(again, news.Moved) and again.already
    assert await contents_of(database_url) == before


async def test_a_ledger_of_an_older_version_is_upgraded_on_the_way(
    tmp_path: Path, database_url: str
) -> None:
    from ledger.test_schema import migrate_one_by_one

    path = tmp_path / "old.db"
    migrate_one_by_one(path, upto=1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO durably_runs (key, agent, queue, state, max_attempts, scheduled_at,"
            " inserted_at) VALUES ('k', 'a', 'agents', 'available', 5,"
            " '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z')"
        )
        connection.execute("INSERT INTO durably_inputs (run_id, prompt) VALUES (1, '\"hi\"')")
    assert plan(str(path), database_url).obstacles == []
    list(move(str(path), database_url))
    assert [run.key for run in (await contents_of(database_url)).runs] == ["k"]


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("postgresql://h/a", "postgresql://h/b", "is no SQLite ledger"),
        ("postgresql://h/a", "a.db", "is no SQLite ledger"),
        ("a.db", "sqlite:///b.db", "is no PostgreSQL ledger"),
        ("a.db", "mysql://h/b", "mysql:// is no database that this version knows"),
        ("nothing.db", "postgresql://127.0.0.1:1/b", "There is no ledger at sqlite:///nothing.db"),
    ],
)
def test_what_cannot_be_moved_is_said_in_a_sentence(source: str, target: str, said: str) -> None:
    for attempt in (plan, take_back, lambda *ends: list(move(*ends))):
        with pytest.raises(Exception, match=re.escape(said)) as refused:
            attempt(source, target)
        assert str(refused.value).count("\n") == 0
