"""Transactional tools: what they write and what the ledger records of them is one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from pydantic_ai import Agent, ModelRetry

from durably import (
    Durably,
    EffectState,
    RunCancelled,
    RunState,
    TransactionEnded,
    boundaries,
    current_call,
    effects,
)
from durably.ledger import attempts
from durably.ledger.postgres.connection import FROZEN_SECONDS
from durably.ledger.written import Step
from support.databases import ON_POSTGRES, sql
from support.ledgers import PATIENCE_SECONDS, until
from support.scripted import NOW, Script, call, tool_texts

pytestmark = pytest.mark.by_database

BOTH = pytest.mark.parametrize("in_thread", [True, False], ids=["sync", "async"])
ONE = "INSERT INTO books VALUES (1)"


@pytest.fixture(autouse=True)
def books(app: Durably) -> None:
    sql(app.settings.url, "CREATE TABLE books (n INTEGER)")


def rows(app: Durably) -> list[int]:
    return sorted(n for (n,) in sql(app.settings.url, "SELECT n FROM books"))


def clerk(do: Callable[[Any], Any], script: Script | None = None) -> Agent[None, str]:
    """An agent with one tool, `book`: sync or async, as ``do`` is, which does the work."""
    agent = Agent((script or Script([call("book")], "done")).model, name="clerk")
    if asyncio.iscoroutinefunction(do):

        @agent.tool_plain(metadata=effects.TRANSACTIONAL)
        async def book() -> str:
            return await do(current_call())
    else:

        @agent.tool_plain(metadata=effects.TRANSACTIONAL, name="book")
        def book_in_thread() -> str:
            return do(current_call())

    return agent


def booking(in_thread: bool, *errors: Exception, log: list[str] | None = None) -> Agent[None, str]:
    """An agent that books, and then raises as often as there are errors."""
    left = list(errors)

    def then() -> str:
        if log is not None:
            log.append("booked")
        if left:
            raise left.pop(0)
        return "booked"

    def sync(call: Any) -> str:
        with call.transaction() as connection:
            connection.execute(ONE)
        return then()

    async def not_sync(call: Any) -> str:
        async with call.transaction() as connection:
            await done(connection.execute(ONE))
        return then()

    return clerk(sync if in_thread else not_sync, Script([call("book")], "done", "done"))


async def done(answer: Any) -> Any:
    """What a connection answers, whether it is to be waited for or not."""
    return await answer if hasattr(answer, "__await__") else answer


# --- one transaction


@BOTH
async def test_more_tools_than_threads_each_have_their_turn(
    app: Durably, log: list[str], in_thread: bool
) -> None:
    """Those that wait for the file must not take the threads in which others commit."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    crowd = 6

    def together() -> bool:
        return len(log) == crowd

    def sync(call: Any) -> str:
        log.append("entered")
        with call.transaction() as connection:
            connection.execute(ONE)
        return "booked"

    async def not_sync(call: Any) -> str:
        log.append("entered")
        async with call.transaction() as connection:
            await until(together, "all have asked for the file")
            await done(connection.execute(ONE))
        return "booked"

    app.register(agent := clerk(sync if in_thread else not_sync), retry=NOW)
    found = [await app.enqueue(agent, "hi") for _ in range(crowd)]
    async with app.worker({"agents": crowd}):
        for run in found:
            assert await run.result(timeout=PATIENCE_SECONDS) == "done"
    assert rows(app) == [1] * crowd
    assert log == ["entered"] * crowd, "none had to run again"


@BOTH
async def test_writes_commit_with_the_result(app: Durably, in_thread: bool) -> None:
    app.register(agent := booking(in_thread))
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert rows(app) == [1]
    (effect,) = await run.effects()
    assert effect.state is EffectState.DONE


@BOTH
async def test_raising_rolls_back_and_the_retry_books_once(
    app: Durably, log: list[str], in_thread: bool
) -> None:
    app.register(agent := booking(in_thread, RuntimeError("after the insert"), log=log), retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == ["booked", "booked"]
    assert rows(app) == [1]


@BOTH
async def test_answering_that_it_did_not_work_rolls_back(app: Durably, in_thread: bool) -> None:
    app.register(agent := booking(in_thread, ModelRetry("not today")))
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert rows(app) == []


@BOTH
async def test_connection_is_the_drivers_own(app: Durably, in_thread: bool) -> None:
    lent: list[Any] = []

    def sync(call: Any) -> str:
        with call.transaction() as connection:
            lent.append(connection)
        return "looked"

    async def not_sync(call: Any) -> str:
        async with call.transaction() as connection:
            lent.append(connection)
        return "looked"

    app.register(agent := clerk(sync if in_thread else not_sync))
    await app.enqueue(agent, "hi")
    await app.drain()
    kinds = {"sqlite": (sqlite3.Connection,) * 2}
    kinds["postgres"] = (psycopg.Connection, psycopg.AsyncConnection)
    assert isinstance(lent[0], kinds[app.ledger.dialect][not in_thread])


async def test_block_that_raised_is_undone_and_another_may_begin(app: Durably) -> None:
    def twice(call: Any) -> str:
        with pytest.raises(ZeroDivisionError), call.transaction() as connection:
            connection.execute("INSERT INTO books VALUES (0)")
            raise ZeroDivisionError
        with call.transaction() as connection:
            connection.execute("INSERT INTO books VALUES (1)")
        with call.transaction() as same:
            assert same is connection
            same.execute("INSERT INTO books VALUES (2)")
        return "booked"

    app.register(agent := clerk(twice))
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert rows(app) == [1, 2]


async def test_tool_that_writes_nothing_is_recorded_all_the_same(app: Durably) -> None:
    app.register(agent := clerk(lambda _: "nothing to do"))
    run = await app.enqueue(agent, "hi")
    await app.drain()
    (effect,) = await run.effects()
    assert effect.state is EffectState.DONE


async def test_calls_of_one_response_each_have_their_own(app: Durably) -> None:
    agent = Agent(Script([call("book", n=1), call("book", "call_1", n=2)], "done").model, name="b")

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    async def book(n: int) -> str:
        async with current_call().transaction() as connection:
            await done(connection.execute(f"INSERT INTO books VALUES ({n})"))
            if n == 2:
                raise ModelRetry("only one a day")
        return "booked"

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert rows(app) == [1]


async def test_only_transactional_tools_get_a_transaction(app: Durably) -> None:
    agent = Agent(Script([call("book")], "done").model, name="plain")

    @agent.tool_plain(metadata=effects.READ)
    def book() -> str:
        with current_call().transaction():
            return "never"

    app.register(agent, max_attempts=1)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    assert run.state is RunState.DISCARDED
    assert "effects.TRANSACTIONAL" in str(run.record.error)


@pytest.mark.parametrize(
    "end", ["COMMIT", " -- so\ncommit transaction", "ROLLBACK", "/* so */ END;"]
)
@BOTH
async def test_tool_cannot_end_the_transaction(app: Durably, end: str, in_thread: bool) -> None:
    refused = r"commits together|Raise an exception|not authorized"

    def sync(call: Any) -> str:
        with call.transaction() as connection:
            connection.execute(ONE)
            for refuse in (connection.commit, connection.rollback, lambda: connection.execute(end)):
                with pytest.raises(Exception, match=refused):
                    refuse()
        return "booked"

    async def not_sync(call: Any) -> str:
        async with call.transaction() as connection:
            await done(connection.execute(ONE))
            for refuse in (connection.commit, connection.rollback, lambda: connection.execute(end)):
                with pytest.raises(Exception, match=refused):
                    await done(refuse())
        return "booked"

    app.register(agent := clerk(sync if in_thread else not_sync))
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert rows(app) == [1]


# --- taken away


async def test_tool_in_a_thread_loses_its_transaction_with_its_attempt(app: Durably) -> None:
    started, ended = threading.Event(), threading.Event()

    def write_on(call: Any) -> str:
        try:
            with call.transaction() as connection:
                while True:
                    connection.execute(ONE)
                    started.set()
        except Exception:
            with pytest.raises(Exception, match="cannot begin any more"):
                call.transaction().__enter__()
            raise
        finally:
            ended.set()

    app.register(agent := clerk(write_on))
    run = await app.enqueue(agent, "hi")
    async with app.worker(grace=0):
        await until(started.is_set, "it writes")
    await until(ended.is_set, "it is refused")
    assert (await run.refresh()).state is RunState.AVAILABLE
    assert rows(app) == []
    assert await run.effects() == []


async def test_async_tool_loses_its_transaction_with_its_attempt(app: Durably) -> None:
    started = asyncio.Event()

    async def wait(call: Any) -> str:
        async with call.transaction() as connection:
            await done(connection.execute(ONE))
            started.set()
            await asyncio.Event().wait()
        return "never"

    app.register(agent := clerk(wait))
    run = await app.enqueue(agent, "hi")
    async with app.worker(grace=0):
        await started.wait()
    assert (await run.refresh()).state is RunState.AVAILABLE
    assert rows(app) == []
    assert await run.effects() == []


async def test_tool_whose_run_was_given_to_another_commits_nothing(app: Durably) -> None:
    agent: Agent[None, str]
    taken: list[bool] = []

    async def lose_it(call: Any) -> str:
        async with call.transaction() as connection:
            if app.ledger.dialect == "postgres":
                await connection.execute(ONE)
            if not taken:
                taken.append(True)
                await app.ledger.write(
                    attempts.hand_back, (await run.refresh()).record.claim, Step()
                )
            await done(connection.execute(ONE))
        return "booked"

    async def write_alone(call: Any) -> str:
        # SQLite has one writer: the run is taken before the transaction begins.
        if not taken:
            taken.append(True)
            await app.ledger.write(attempts.hand_back, (await run.refresh()).record.claim, Step())
        async with call.transaction() as connection:
            connection.execute("INSERT INTO books VALUES (1), (1)")
        return "booked"

    app.register(agent := clerk(lose_it if app.ledger.dialect == "postgres" else write_alone))
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).output() == "done"
    assert rows(app) == [1, 1]
    assert (run.record.failures, run.record.crashes) == (0, 0)


# --- PostgreSQL alone


def sessions(app: Durably, where: str) -> list[tuple[Any, ...]]:
    """Sessions of others, in this database, that look like this."""
    return sql(
        app.settings.url,
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        f"AND pid <> pg_backend_pid() AND {where}",
    )


@ON_POSTGRES
@BOTH
async def test_server_stops_what_it_does_for_a_tool_that_was_stopped(
    app: Durably, in_thread: bool
) -> None:
    """Else it would hold the tool's locks until it had an answer, for nobody."""
    endless = "SELECT pg_sleep(1000)"

    def sync(call: Any) -> str:
        with call.transaction() as connection:
            connection.execute(ONE)
            connection.execute(endless)
        return "never"

    async def not_sync(call: Any) -> str:
        async with call.transaction() as connection:
            await connection.execute(ONE)
            await asyncio.shield(connection.execute(endless))
        return "never"

    app.register(agent := clerk(sync if in_thread else not_sync))
    run = await app.enqueue(agent, "hi")
    async with app.worker():
        await until(lambda: bool(sessions(app, f"query = '{endless}'")), "it sleeps")
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(timeout=120)
        await until(lambda: not sessions(app, f"query = '{endless}'"), "it was stopped")
    assert rows(app) == []


@ON_POSTGRES
async def test_async_tool_does_not_hold_up_the_event_loop(app: Durably) -> None:
    waiting = "SELECT pg_advisory_xact_lock(1)"

    async def wait(call: Any) -> str:
        async with call.transaction() as connection:
            await connection.execute(waiting)
            await connection.execute(ONE)
        return "booked"

    app.register(agent := clerk(wait))
    run = await app.enqueue(agent, "hi")
    with psycopg.connect(app.settings.url) as other:
        other.execute(waiting)
        draining = asyncio.create_task(app.drain())
        await until(lambda: bool(sessions(app, "wait_event_type = 'Lock'")), "it waits")
    await draining
    assert (await run.refresh()).output() == "done"
    assert rows(app) == [1]


@ON_POSTGRES
@pytest.mark.parametrize("end", ["; COMMIT", "; ROLLBACK", "; COMMIT; BEGIN"])
@BOTH
async def test_transaction_that_the_tool_did_end_is_found_out(
    app: Durably, end: str, in_thread: bool
) -> None:
    def sync(call: Any) -> str:
        with call.transaction() as connection:
            connection.execute(ONE + end)
            connection.execute("INSERT INTO books VALUES (2)")
        return "booked"

    async def not_sync(call: Any) -> str:
        async with call.transaction() as connection:
            await connection.execute(ONE + end)
            await connection.execute("INSERT INTO books VALUES (2)")
        return "booked"

    app.register(agent := clerk(sync if in_thread else not_sync), retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 1, "it would do so again"
    await run.refresh()
    assert run.state is RunState.DISCARDED
    assert str(run.record.error).startswith(f"{TransactionEnded.__name__}: The tool ended its")
    assert await run.effects() == []
    assert 2 not in rows(app)


@ON_POSTGRES
async def test_savepoints_are_the_tools_own(app: Durably) -> None:
    def save(call: Any) -> str:
        with call.transaction() as connection:
            with connection.transaction():
                connection.execute(ONE)
            with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
                connection.execute("INSERT INTO books VALUES (2)")
                connection.execute("SELECT 1 / 0")
            connection.execute("SAVEPOINT mine")
            connection.execute("INSERT INTO books VALUES (3)")
            connection.execute("ROLLBACK TO mine")
        return "booked"

    app.register(agent := clerk(save))
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert rows(app) == [1]


@ON_POSTGRES
async def test_error_that_the_tool_swallowed_is_explained(app: Durably) -> None:
    def swallow(call: Any) -> str:
        with call.transaction() as connection:
            connection.execute(ONE)
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / 0")
        return "booked"

    app.register(agent := clerk(swallow), max_attempts=1)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert "PostgreSQL undid the whole of it" in str((await run.refresh()).record.error)
    assert rows(app) == []


NOTE = """
    CREATE TABLE seen (name text, value text);
    CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO seen SELECT name, setting FROM pg_settings WHERE name IN (
            'synchronous_commit', 'lock_timeout', 'idle_in_transaction_session_timeout');
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER note AFTER INSERT ON books DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION note();
"""


@ON_POSTGRES
@BOTH
async def test_tool_may_take_its_time_and_the_ledger_may_not(app: Durably, in_thread: bool) -> None:
    """Short limits hold from the moment that the run is held; and the commit is durable."""
    shown: dict[str, Any] = {}
    names = ("synchronous_commit", "lock_timeout", "idle_in_transaction_session_timeout")
    sql(app.settings.url, NOTE)
    ((database,),) = sql(app.settings.url, "SELECT current_database()")
    for setting in ("search_path = public, pg_temp", "synchronous_commit = off"):
        sql(app.settings.url, f"ALTER DATABASE {database} SET {setting}")

    def sync(call: Any) -> str:
        with call.transaction() as connection:
            for name in (*names, "search_path"):
                shown[name] = connection.execute(f"SHOW {name}").fetchone()[0]
            connection.execute(ONE)
        return "booked"

    async def not_sync(call: Any) -> str:
        async with call.transaction() as connection:
            for name in (*names, "search_path"):
                shown[name] = (await (await connection.execute(f"SHOW {name}")).fetchone())[0]
            await connection.execute(ONE)
        return "booked"

    app.register(agent := clerk(sync if in_thread else not_sync))
    run = await app.enqueue(agent, "hi")
    try:
        await app.drain()
    finally:
        sql(app.settings.url, f"ALTER DATABASE {database} RESET ALL")
    assert (await run.refresh()).output() == "done"
    assert shown == {
        "synchronous_commit": "off",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "search_path": "public, pg_temp",
    }
    assert dict(sql(app.settings.url, "SELECT name, value FROM seen")) == {
        "synchronous_commit": "on",
        "lock_timeout": "10000",
        "idle_in_transaction_session_timeout": str(1000 * FROZEN_SECONDS),
    }


@ON_POSTGRES
async def test_process_frozen_before_its_commit_loses_the_transaction(app: Durably) -> None:
    """It holds the run, which must be free to be given to another."""
    frozen = "state = 'idle in transaction'"
    struck: list[bool] = []

    def freeze(boundary: str) -> None:
        if boundary == "transaction:before_commit" and not struck:
            struck.append(bool(sessions(app, frozen)))
            while sessions(app, frozen):
                time.sleep(0.05)

    app.register(agent := booking(True), retry=NOW)
    run = await app.enqueue(agent, "hi")
    boundaries.observe(freeze)
    try:
        assert await app.drain() == 1
    finally:
        boundaries.observe(None)
    assert struck == [True]
    assert (await run.refresh()).output() == "done"
    assert rows(app) == [1]


@ON_POSTGRES
@pytest.mark.parametrize("says", ["nothing", "that it failed", "that it should be asked again"])
async def test_tool_whose_connection_is_lost_runs_again_at_once(app: Durably, says: str) -> None:
    """It is the database's fault, whatever the tool makes of it; the attempt goes on."""
    lost: list[bool] = []

    def lose_it(call: Any) -> str:
        with contextlib.suppress(psycopg.Error), call.transaction() as connection:
            connection.execute(ONE)
            if lost:
                return "booked"
            lost.append(True)
            end(app, connection)
            connection.execute(ONE)
        if says == "that it failed":
            raise RuntimeError("it does not work")
        if says == "that it should be asked again":
            raise ModelRetry("Once more, please.")
        return "not booked"

    script = Script([call("book")], "done")
    app.register(agent := clerk(lose_it, script), retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 1
    assert (await run.refresh()).output() == "done"
    assert tool_texts(script.seen[-1]) == ["booked"]
    assert rows(app) == [1]
    assert run.record.usage["tool_calls"] == 1, "only what happened is on the bill"


@ON_POSTGRES
async def test_tool_that_always_loses_its_connection_fails_the_attempt(app: Durably) -> None:
    def lose_it(call: Any) -> str:
        with call.transaction() as connection:
            connection.execute(ONE)
            end(app, connection)
        return "booked"

    app.register(agent := clerk(lose_it), retry=NOW, max_attempts=2)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).state is RunState.DISCARDED
    assert rows(app) == []


def end(app: Durably, connection: Any) -> None:
    """Have the server end a session, as it does when it restarts."""
    sql(app.settings.url, f"SELECT pg_terminate_backend({connection.info.backend_pid}, 60000)")


@ON_POSTGRES
async def test_model_is_told_what_was_booked(app: Durably) -> None:
    script = Script([call("book")], "done")

    async def answer(call: Any) -> str:
        async with call.transaction() as connection:
            cursor = await connection.execute("SELECT json_build_object('a', 1)")
            ((value,),) = await cursor.fetchall()
            assert value == {"a": 1}, "JSON is read as psycopg reads it, not as the ledger does"
            cursor = await connection.execute("INSERT INTO books VALUES (%s) RETURNING n", (7,))
            ((n,),) = await cursor.fetchall()
        return f"booked {n}"

    app.register(agent := clerk(answer, script))
    await app.enqueue(agent, "hi")
    await app.drain()
    assert tool_texts(script.seen[-1]) == ["booked 7"]
