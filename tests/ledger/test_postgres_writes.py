"""Writes on PostgreSQL: durable, sharing transactions, made again where the server undid them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest

from durably import boundaries
from durably.errors import ConfigError, LedgerError, LedgerUnavailable
from durably.ledger import attempts, reads, runs, steps
from durably.ledger.database import Database
from durably.ledger.operations import Operation, execute
from durably.ledger.postgres import session
from durably.ledger.postgres.connection import LOCK_SECONDS, translate
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.written import Step
from durably.records import Claim, RunRecord
from support.held import HeldWriters
from support.ledgers import (
    PATIENCE_SECONDS,
    Ledger,
    PostgresBackend,
    done,
    message,
    new_run,
    tool_call,
    until,
)
from support.postgres_server import PostgresServer
from support.wire import Cut, Network

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@contextmanager
def observing(observer: Callable[[str], None]) -> Generator[None]:
    boundaries.observe(observer)
    try:
        yield
    finally:
        boundaries.observe(None)


@asynccontextmanager
async def opened(url: str, *, migrate: bool = False) -> AsyncGenerator[PostgresDatabase]:
    database = PostgresDatabase(url)
    await (database.migrate() if migrate else database.open())
    try:
        yield database
    finally:
        await database.close()


def keys(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {key for (key,) in connection.execute("SELECT key FROM durably_runs").fetchall()}


async def waits_for_a_lock(url: str, how_many: int = 1) -> None:
    with psycopg.connect(url, autocommit=True) as connection:

        def waiting() -> bool:
            row = connection.execute(f"{WAITING} AND datname = current_database()".encode())
            return (row.fetchone() or (0,))[0] >= how_many

        await until(waiting, "somebody waits for a lock")


# --- durable


@pytest.mark.parametrize("default", ["on", "off", "local"])
async def test_commits_wait_for_the_disk_whatever_the_databases_default(
    migrated_url: str, default: str
) -> None:
    name = migrated_url.rpartition("/")[2]
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = {default}".encode())
    seen: list[str] = []
    async with opened(migrated_url) as database:

        def ask(at: str) -> None:
            if at == "commit:before":
                (used,) = [s._connection for s in database._sessions if s._connection]  # pyright: ignore
                seen.append(used.execute("SHOW synchronous_commit").fetchone()[0])  # pyright: ignore

        with observing(ask):
            await database.write(runs.insert, new_run("r"))
    assert seen == ["on" if default == "off" else default]


async def test_acknowledged_writes_survive_a_server_that_stops_at_once(
    own_postgres: PostgresServer,
) -> None:
    url = own_postgres.url()
    acknowledged: set[str] = set()
    async with opened(url, migrate=True) as database:
        for turn in range(3):
            seen = len(acknowledged)

            async def write(name: str) -> None:
                for n in range(10_000):
                    run, _ = await database.write(runs.insert, new_run(f"{name}-{n}"))
                    acknowledged.add(run.key)

            writing = [asyncio.create_task(write(f"{turn}-{n}")) for n in range(20)]
            await until(lambda before=seen: len(acknowledged) > before + 200, "it is busy")
            await asyncio.to_thread(own_postgres.stop, "immediate")
            told = await asyncio.gather(*writing, return_exceptions=True)
            assert {type(error) for error in told} == {LedgerUnavailable}
            await asyncio.to_thread(own_postgres.start)
            assert acknowledged <= keys(url)
        await database.write(runs.insert, new_run("after"))


async def test_writes_that_wait_are_one_transaction_of_the_server(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    async with HeldWriters(ledger):
        writing = [
            asyncio.create_task(ledger.write(runs.insert, new_run(f"r{n}"))) for n in range(100)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*writing)
    ((runs_, transactions),) = pg.select(
        "SELECT count(*), count(DISTINCT CAST(xmin AS TEXT)) FROM durably_runs"
    )
    assert runs_ == 100
    assert transactions <= pg.writers


# --- one job among others


async def test_job_that_the_server_refuses_undoes_only_itself(ledger: Ledger, pg: Any) -> None:
    async with HeldWriters(ledger):
        writing = [
            asyncio.create_task(ledger.write(runs.insert, new_run(key, prompt=prompt)))
            for key, prompt in (("before", '"x"'), ("bad", "{no json"), ("after", '"x"'))
        ]
        await asyncio.sleep(0)
    told = await asyncio.gather(*writing, return_exceptions=True)
    assert isinstance(told[1], LedgerError)
    assert str(told[1]).startswith(f"{pg.database.url} refused what was to be written: ")
    assert keys(pg.url) == {"before", "after"}


async def test_run_that_somebody_else_has_locked_holds_up_no_other(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    run = await ledger.executing()
    with pg.connect() as connection:
        connection.execute("SELECT 1 FROM durably_runs WHERE id = %s FOR UPDATE", (run.id,))
        async with HeldWriters(ledger):
            blocked = asyncio.create_task(
                ledger.write(steps.record_step, run.claim, Step(messages=(message(0),)))
            )
            others = [
                asyncio.create_task(ledger.write(runs.insert, new_run(f"n{n}"))) for n in range(50)
            ]
            await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*others), LOCK_SECONDS / 2)
        assert not blocked.done()
        connection.rollback()
    await blocked
    assert len(await ledger.read(reads.list_messages, run.id)) == 1


async def test_batches_that_hold_many_runs_never_want_each_others(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    """Tools of two runs that end together: two transactions, in two orders, would deadlock."""
    one, two, three = [await ledger.executing(key=key) for key in ("one", "two", "three")]
    held, go_on, begun = threading.Event(), threading.Event(), list[str]()

    def writing(claim: Claim, name: str) -> Operation[None]:
        begun.append(name)
        yield from steps.record_step(claim, Step(events=((name, {}),)))
        if name == "first":
            held.set()
            assert go_on.wait(PATIENCE_SECONDS)

    async def write(run: RunRecord, name: str) -> None:
        await ledger.write(writing, run.claim, name)

    async with HeldWriters(ledger):
        batch = [asyncio.create_task(write(one, "first")), asyncio.create_task(write(two, "then"))]
        await asyncio.sleep(0)
    assert await asyncio.to_thread(held.wait, PATIENCE_SECONDS)
    try:
        batch += [asyncio.create_task(write(two, "b")), asyncio.create_task(write(one, "a"))]
        await asyncio.sleep(0)
        for n in range(10):
            await asyncio.wait_for(write(three, f"other {n}"), PATIENCE_SECONDS)
        assert begun == ["first", *(f"other {n}" for n in range(10))]
    finally:
        go_on.set()
        await asyncio.gather(*batch)
    assert begun[-3:] in (["then", "a", "b"], ["then", "b", "a"])


# --- tried again


async def test_write_that_the_server_chose_to_end_a_deadlock_is_made_again(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    first, second = await ledger.insert(), await ledger.insert()
    locked, go_on, tries = threading.Event(), threading.Event(), list[int]()

    def both() -> Operation[None]:
        tries.append(1)
        yield from execute("lock_run", run_id=first.id)
        locked.set()
        assert go_on.wait(PATIENCE_SECONDS)
        yield from execute("lock_run", run_id=second.id)
        yield from runs.cancel(second.key, "me")

    with pg.connect() as other:
        other.execute("SET deadlock_timeout = '60s'")  # it is the ledger that gives way
        lock = "SELECT 1 FROM durably_runs WHERE id = %s FOR UPDATE"
        other.execute(lock, (second.id,))
        writing = asyncio.create_task(ledger.write(both))
        assert await asyncio.to_thread(locked.wait, PATIENCE_SECONDS)
        waiting = asyncio.create_task(asyncio.to_thread(other.execute, lock, (first.id,)))
        await waits_for_a_lock(pg.url)
        go_on.set()
        await waiting
        other.rollback()
        await writing
    assert len(tries) >= 2, "the other one may lose the race for the lock once more"
    assert (await ledger.get(second)).state == "cancelled"


REFUSING = """
CREATE SEQUENCE tries;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('tries') <= {times} THEN
        RAISE EXCEPTION 'not now' USING ERRCODE = '40001';
    END IF;
    RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON durably_runs FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("times", [1, session.TRIES - 1])
async def test_serialization_failure_is_tried_again(
    migrated_url: str, times: int, alone: bool
) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(REFUSING.format(times=times).encode())
    async with opened(migrated_url) as database:
        run, created = await database.write(runs.insert, new_run("r"), alone=alone)
    assert (run.key, created) == ("r", True)
    assert keys(migrated_url) == {"r"}


@pytest.mark.parametrize("alone", [False, True])
async def test_serialization_failure_that_does_not_end_is_said(
    migrated_url: str, alone: bool
) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(REFUSING.format(times=session.TRIES).encode())
    async with opened(migrated_url) as database:
        with pytest.raises(LedgerUnavailable, match="not now"):
            await database.write(runs.insert, new_run("r"), alone=alone)
        assert (await database.write(runs.insert, new_run("r")))[1]


async def test_lock_that_is_never_released_is_said_and_loses_nothing(
    ledger: Ledger, pg: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BEGIN_WRITE", session.BEGIN_WRITE.replace("'10s'", "'50ms'"))
    run = await ledger.executing()
    async with opened(pg.url) as database:
        with pg.connect() as connection:
            connection.execute("SELECT 1 FROM durably_runs WHERE id = %s FOR UPDATE", (run.id,))
            for _ in range(2):
                with pytest.raises(LedgerUnavailable) as refused:
                    await database.write(attempts.hand_back, run.claim, Step())
                assert str(refused.value) == (
                    f"{database.url}: another transaction held a row for 10 s; nothing was written."
                )
            connection.rollback()
        assert (await database.write(attempts.hand_back, run.claim, Step())).state == "available"


async def test_transaction_that_stands_still_lets_go_of_its_run_and_is_made_again(
    ledger: Ledger, pg: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a process that is frozen: its run must be free to be given to another."""
    monkeypatch.setattr(session, "BEGIN_WRITE", session.BEGIN_WRITE.replace("'5s'", "'100ms'"))
    run = await ledger.insert()
    tries: list[int] = []
    frozen, thaw = threading.Event(), threading.Event()

    def freezing() -> Operation[RunRecord]:
        cancelled = yield from runs.cancel(run.key, "me")
        tries.append(1)
        frozen.set()
        assert thaw.wait(PATIENCE_SECONDS)
        return cancelled

    async with opened(pg.url) as database:
        writing = asyncio.create_task(database.write(freezing))
        assert await asyncio.to_thread(frozen.wait, PATIENCE_SECONDS)
        assert (await ledger.claim(run)).state == "executing"  # waits for the lock, and gets it
        thaw.set()
        assert (await writing).state == "executing", "the second try found it executing"
    assert len(tries) == 2


# --- what text may hold


HOSTILE = 'a\x00b \ud83d c \\u0000 " \U0001f600'


@pytest.mark.parametrize("end", [attempts.fail, attempts.discard])
async def test_text_that_no_database_can_hold_does_not_lose_the_write(
    ledger: Ledger, pg: PostgresBackend, end: Any
) -> None:
    """Errors quote what others sent: a NUL, half a character."""
    run = await ledger.executing()
    delay = (0.0,) if end is attempts.fail else ()
    ended = await ledger.write(end, run.claim, HOSTILE, f"Traceback {HOSTILE}", *delay, Step())
    assert ended.error == 'a\ufffdb ? c \\u0000 " \U0001f600'
    (_, attempt) = await ledger.read(reads.list_attempts, run.id)
    assert attempt.error == ended.error
    event = (await ledger.read(reads.list_events, run.id, 0, 100))[-1]
    assert event.data["error"] == HOSTILE, "JSON escapes them"


async def test_json_of_models_is_kept_to_the_letter(ledger: Ledger, pg: PostgresBackend) -> None:
    """Escaped NULs and halves of characters, spaces, double keys, numbers of any length."""
    bodies = (
        r'"a\u0000b"',
        r'{"b":  1, "a":[\n] , "b": 1.0000000000000000000000000001e400}'.replace(r"\n", "\n"),
        r'"\ud83d"',
        r'"\ud83d\ude00 \/ é \u00e9"',
    )
    run = await ledger.executing(prompt=bodies[0], args='{"x": "\\u0000"}')
    step = Step(messages=tuple(message(n, body) for n, body in enumerate(bodies)))
    await ledger.write(steps.record_step, run.claim, step)
    assert [m.body for m in await ledger.read(reads.list_messages, run.id)] == list(bodies)
    given = await ledger.read(reads.get_input, run.id)
    assert (given.prompt, given.args) == (bodies[0], {"x": "\x00"})
    assert (await ledger.write(attempts.complete, run.claim, bodies[0], Step())).output == bodies[0]


# --- poolers


def test_pooler_that_mixes_sessions_is_named(database_url: str) -> None:
    # As behind a pooler in transaction mode: this connection knows nothing of what was prepared.
    with psycopg.connect(database_url, prepare_threshold=0, autocommit=True) as connection:
        connection.execute("SELECT 1")
        connection.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$", prepare=False)
        with pytest.raises(psycopg.Error) as raised:
            connection.execute("SELECT 1")
    error = translate(raised.value, "postgresql://pooler/shop")
    assert isinstance(error, ConfigError)
    assert "say ?prepare=off&notify=off in the URL" in str(error)


# --- one statement, and no transaction around it


async def test_step_of_which_a_part_is_there_is_refused_and_nothing_of_it_is_written(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    async with opened(pg.url) as database:
        run = await ledger.executing()
        await database.write(steps.record_step, run.claim, Step(messages=(message(0, '"a"'),)))
        both = Step(messages=(message(0, '"a"'), message(1, '"b"')), usage='{"requests": 7}')
        for _ in range(7):  # also once the server has it prepared
            with pytest.raises(LedgerError, match="but not all that come with them"):
                await database.write(steps.record_step, run.claim, both, alone=True)
        other = Step(messages=(message(0, '"another"'),))
        with pytest.raises(LedgerError, match="another one already"):
            await database.write(steps.record_step, run.claim, other, alone=True)
        assert [m.body for m in await ledger.read(reads.list_messages, run.id)] == ['"a"']
        assert (await ledger.get(run)).usage == run.usage


@pytest.mark.parametrize(
    "setting", ["synchronous_commit = off", "default_transaction_isolation = serializable"]
)
async def test_step_is_durable_whatever_the_server_is_set_to(
    ledger: Ledger, pg: PostgresBackend, setting: str
) -> None:
    """Then it has a transaction, which says what it is to be."""
    with psycopg.connect(pg.url, autocommit=True) as connection:
        (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(f'ALTER DATABASE "{name}" SET {setting}'.encode())
        try:
            async with opened(pg.url) as database:
                run = await ledger.executing()
                step = Step(messages=(message(0),))
                await database.write(steps.record_step, run.claim, step, alone=True)
                await database.write(steps.record_intent, run.claim, tool_call())
                assert len(await ledger.read(reads.list_messages, run.id)) == 1
        finally:
            connection.execute(f'ALTER DATABASE "{name}" RESET ALL'.encode())


ALONE: dict[str, Callable[[Database, RunRecord], Awaitable[object]]] = {
    "enqueue": lambda db, _: db.write(runs.insert, new_run("new"), alone=True),
    "step": lambda db, run: db.write(
        steps.record_step, run.claim, Step(messages=(message(0),)), alone=True
    ),
    "intent": lambda db, run: db.write(steps.record_intent, run.claim, tool_call()),
    "outcome": lambda db, run: db.write(steps.record_outcome, run.claim, done(tool_call())),
    "complete": lambda db, run: db.write(attempts.complete, run.claim, '"x"', Step(), alone=True),
    "read": lambda db, run: db.read(reads.get_run, run.key, alone=True),
}


@pytest.mark.parametrize("what", ALONE)
async def test_connection_that_the_server_ended_while_it_was_idle_is_replaced(
    ledger: Ledger, pg: PostgresBackend, what: str
) -> None:
    """It is noticed before anything is sent: nobody would know whether that was done."""
    run = await ledger.executing()
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with opened(pg.url) as database:
        await database.write(steps.find_outcome, run.claim, tool_call().position)
        await database.read(reads.get_run, run.key)
        with pg.connect() as connection:
            connection.execute(f"SELECT pg_terminate_backend(pid, 60000) {others}".encode())
        await ALONE[what](database, run)


async def test_enqueueing_of_which_nobody_heard_is_made_again_and_finds_its_run(
    pg: PostgresBackend, migrated_url: str
) -> None:
    with Network(migrated_url) as network:
        strike = network.strike(Cut.AFTER, "INSERT INTO .*durably_runs")
        async with opened(network.url) as database:
            run, created = await database.write(runs.insert, new_run("r"), alone=True)
            assert strike.done.is_set()
    assert (run.key, created) == ("r", False)
    with psycopg.connect(migrated_url) as connection:
        counted = "(SELECT count(*) FROM durably_runs), (SELECT count(*) FROM oban_jobs)"
        assert connection.execute(f"SELECT {counted}".encode()).fetchone() == (1, 1)
