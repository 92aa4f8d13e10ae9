"""Enqueuing in the application's own transaction: the run exists exactly if that is committed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import namedtuple_row
from psycopg.types.json import set_json_loads
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from durably import (
    ConfigError,
    Durably,
    KeyConflict,
    LedgerError,
    LedgerUnavailable,
    RunNotFound,
)
from support.ledgers import PATIENCE_SECONDS, Backend, PostgresBackend, SqliteBackend
from support.postgres_run import Postgres

pytestmark = pytest.mark.by_database


def say_ok(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
    return ModelResponse(parts=[TextPart("ok")])


agent = Agent(FunctionModel(say_ok), name="clerk")


@pytest.fixture
async def app(backend: Backend) -> AsyncGenerator[Durably]:
    async with Durably(backend.url, agents=[agent]) as app:
        with backend.connect() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY)")
            connection.commit()
        yield app


async def keys(app: Durably) -> set[str]:
    return {run.key for run in await app.runs(limit=1000)}


def orders(backend: Backend) -> list[tuple[Any, ...]]:
    return backend.select("SELECT id FROM orders")


def jobs(backend: Backend) -> set[str]:
    """The keys of the runs that Oban has a job for."""
    return {key for (key,) in backend.select("SELECT args ->> 'key' FROM oban_jobs")}


# --- the ways to have a transaction open


class Rollback(Exception):
    """Leaves a block that would commit."""


@dataclass
class Guest:
    """An application's transaction.

    Attributes:
        conn: what the application has in its hands.
    """

    conn: Any
    execute: Callable[[str], Any]
    commit: Callable[[], Any]
    rollback: Callable[[], Any]


async def done(value: Any) -> Any:
    """The value, also of those that have to be awaited."""
    return await value if isinstance(value, Awaitable) else value


type Way = Callable[[str], AbstractAsyncContextManager[Guest]]


@asynccontextmanager
async def plain(url: str, **options: Any) -> AsyncGenerator[Guest]:
    with closing(sqlite3.connect(url, **options)) as conn:
        if conn.isolation_level is None:
            conn.execute("BEGIN")
        yield Guest(conn, conn.execute, conn.commit, conn.rollback)


def manual(url: str) -> AbstractAsyncContextManager[Guest]:
    return plain(url, isolation_level=None)


def modern(url: str) -> AbstractAsyncContextManager[Guest]:
    return plain(url, autocommit=False)


@asynccontextmanager
async def sync_psycopg(url: str) -> AsyncGenerator[Guest]:
    with psycopg.connect(url) as conn:
        yield Guest(conn, lambda sql: conn.execute(sql.encode()), conn.commit, conn.rollback)


@asynccontextmanager
async def psycopg_that_began(url: str) -> AsyncGenerator[Guest]:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("BEGIN")

        def execute(sql: str) -> Any:
            return conn.execute(sql.encode())

        yield Guest(conn, execute, lambda: execute("COMMIT"), lambda: execute("ROLLBACK"))


@asynccontextmanager
async def psycopg_block(url: str) -> AsyncGenerator[Guest]:
    with psycopg.connect(url, autocommit=True) as conn:
        block = conn.transaction()
        block.__enter__()
        yield Guest(
            conn,
            lambda sql: conn.execute(sql.encode()),
            lambda: block.__exit__(None, None, None),
            lambda: block.__exit__(Rollback, Rollback(), None),
        )


@asynccontextmanager
async def client_side_psycopg(url: str) -> AsyncGenerator[Guest]:
    with psycopg.connect(url, cursor_factory=psycopg.ClientCursor) as conn:
        yield Guest(conn, lambda sql: conn.execute(sql.encode()), conn.commit, conn.rollback)


@asynccontextmanager
async def raw_psycopg(url: str) -> AsyncGenerator[Guest]:
    """Whose parameters are written ``$1``."""
    with psycopg.connect(url, cursor_factory=psycopg.RawCursor) as conn:
        yield Guest(conn, lambda sql: conn.execute(sql.encode()), conn.commit, conn.rollback)


@asynccontextmanager
async def async_psycopg(url: str) -> AsyncGenerator[Guest]:
    async with await psycopg.AsyncConnection.connect(url) as conn:
        yield Guest(conn, lambda sql: conn.execute(sql.encode()), conn.commit, conn.rollback)


@asynccontextmanager
async def async_psycopg_block(url: str) -> AsyncGenerator[Guest]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        block = conn.transaction()
        await block.__aenter__()
        yield Guest(
            conn,
            lambda sql: conn.execute(sql.encode()),
            lambda: block.__aexit__(None, None, None),
            lambda: block.__aexit__(Rollback, Rollback(), None),
        )


def alchemy_url(url: str) -> str:
    if "://" not in url:
        return f"sqlite:///{url}"
    return url.replace("postgresql://", "postgresql+psycopg://")


@asynccontextmanager
async def alchemy_connection(url: str) -> AsyncGenerator[Guest]:
    engine = sqlalchemy.create_engine(alchemy_url(url))
    with engine.connect() as conn:
        yield Guest(
            conn, lambda sql: conn.execute(sqlalchemy.text(sql)), conn.commit, conn.rollback
        )
    engine.dispose()


@asynccontextmanager
async def alchemy_session(url: str) -> AsyncGenerator[Guest]:
    engine = sqlalchemy.create_engine(alchemy_url(url))
    with Session(engine) as conn:
        yield Guest(
            conn, lambda sql: conn.execute(sqlalchemy.text(sql)), conn.commit, conn.rollback
        )
    engine.dispose()


@asynccontextmanager
async def async_alchemy_connection(url: str) -> AsyncGenerator[Guest]:
    engine = create_async_engine(alchemy_url(url))
    async with engine.connect() as conn:
        yield Guest(
            conn, lambda sql: conn.execute(sqlalchemy.text(sql)), conn.commit, conn.rollback
        )
    await engine.dispose()


@asynccontextmanager
async def async_alchemy_session(url: str) -> AsyncGenerator[Guest]:
    engine = create_async_engine(alchemy_url(url))
    async with AsyncSession(engine) as conn:
        yield Guest(
            conn, lambda sql: conn.execute(sqlalchemy.text(sql)), conn.commit, conn.rollback
        )
    await engine.dispose()


ALCHEMY = (alchemy_connection, alchemy_session)
WAYS: dict[str, tuple[Way, ...]] = {
    "sqlite": (plain, manual, modern, *ALCHEMY),
    "pg": (
        sync_psycopg,
        psycopg_that_began,
        psycopg_block,
        client_side_psycopg,
        raw_psycopg,
        async_psycopg,
        async_psycopg_block,
        *ALCHEMY,
        async_alchemy_connection,
        async_alchemy_session,
    ),
}


class Place(NamedTuple):
    """A ledger's database, and a way into it."""

    backend: Backend
    opening: Callable[[], AbstractAsyncContextManager[Guest]]


@pytest.fixture
def place(backend: Backend, way: Way) -> Place:
    return Place(backend, lambda: way(backend.url))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each way into each database."""
    if "place" in metafunc.fixturenames:
        every = [(name, way) for name, ways in WAYS.items() for way in ways]
        ids = [f"{name}-{way.__name__}" for name, way in every]
        metafunc.parametrize("backend, way", every, indirect=["backend"], ids=ids)


# --- committed or rolled back


async def test_rolled_back_transaction_leaves_no_run(app: Durably, place: Place) -> None:
    async with place.opening() as guest:
        run = await app.enqueue(agent, "hello", key="first", conn=guest.conn)
        await done(guest.execute("INSERT INTO orders VALUES (1)"))
        await app.enqueue(agent, "hello", key="second", conn=guest.conn)
        assert run.key == "first"
        await done(guest.rollback())
    assert orders(place.backend) == []
    assert await keys(app) == set()
    with pytest.raises(RunNotFound):
        await app.get("first")
    if isinstance(place.backend, PostgresBackend):
        assert jobs(place.backend) == set()


@pytest.mark.parametrize("first", ["run", "order"])
async def test_committed_transaction_has_its_run(app: Durably, place: Place, first: str) -> None:
    async with place.opening() as guest:
        if first == "order":
            await done(guest.execute("INSERT INTO orders VALUES (1)"))
        run = await app.enqueue(agent, "hello", key="k", conn=guest.conn)
        if first == "run":
            assert await keys(app) == set(), "not before the commit"
        await done(guest.commit())
    assert orders(place.backend) == ([(1,)] if first == "order" else [])
    assert await keys(app) == {"k"}
    assert await run.prompt() == "hello"
    if isinstance(place.backend, PostgresBackend):
        assert jobs(place.backend) == {"k"}


async def test_run_that_was_enqueued_in_a_transaction_is_executed(
    app: Durably, backend: Backend
) -> None:
    async with app.worker():
        with backend.connect() as connection:
            run = await app.enqueue(agent, "hello", key="k", conn=connection)
            connection.commit()
        assert await run.result(timeout=PATIENCE_SECONDS) == "ok"


# --- the caller's transaction goes on


async def test_refused_key_leaves_the_transaction_usable(app: Durably, place: Place) -> None:
    async with place.opening() as guest:
        first = await app.enqueue(agent, "hello", key="k", conn=guest.conn)
        again = await app.enqueue(agent, "hello", key="k", conn=guest.conn)
        assert again.record == first.record
        with pytest.raises(KeyConflict):
            await app.enqueue(agent, "goodbye", key="k", conn=guest.conn)
        await done(guest.execute("INSERT INTO orders VALUES (1)"))
        await done(guest.commit())
    assert await keys(app) == {"k"}
    assert orders(place.backend) == [(1,)]


async def test_enqueue_that_the_database_refuses_leaves_the_transaction_usable(
    app: Durably, place: Place
) -> None:
    """And nothing in it: there must be no run without its prompt."""
    with refusing_large_prompts(place.backend):
        await try_a_large_prompt(app, place)
    assert await keys(app) == {"small"}
    assert orders(place.backend) == [(1,)]


async def try_a_large_prompt(app: Durably, place: Place) -> None:
    async with place.opening() as guest:
        await done(guest.execute("INSERT INTO orders VALUES (1)"))
        with pytest.raises(LedgerError, match="too large"):
            await app.enqueue(agent, "x" * 10_000, key="large", conn=guest.conn)
        await app.enqueue(agent, "small", key="small", conn=guest.conn)
        await done(guest.commit())


@contextmanager
def refusing_large_prompts(backend: Backend) -> Generator[None]:
    """A trigger of the administrator's."""
    on_postgres = isinstance(backend, PostgresBackend)
    with backend.connect() as connection:
        for statement in REFUSING["pg" if on_postgres else "sqlite"]:
            connection.execute(statement)
        connection.commit()
        try:
            yield
        finally:
            on = " ON durably_inputs" if on_postgres else ""
            connection.execute(f"DROP TRIGGER refuse_large{on}")
            connection.commit()


REFUSING = {
    "sqlite": (
        "CREATE TRIGGER refuse_large BEFORE INSERT ON durably_inputs "
        "WHEN length(new.prompt) > 9000 BEGIN SELECT RAISE(ABORT, 'too large'); END",
    ),
    "pg": (
        "CREATE OR REPLACE FUNCTION refuse_large() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE check_violation USING MESSAGE = 'too large'; END $$",
        "CREATE TRIGGER refuse_large BEFORE INSERT ON durably_inputs FOR EACH ROW "
        "WHEN (length(CAST(new.prompt AS TEXT)) > 9000) EXECUTE FUNCTION refuse_large()",
    ),
}


async def test_runs_are_enqueued_while_a_cursor_is_read(app: Durably, backend: Backend) -> None:
    """One run for each row of a query: the natural loop."""
    with backend.connect() as connection:
        for number in range(5):
            connection.execute(f"INSERT INTO orders VALUES ({number})")
        connection.commit()
        for (number,) in connection.execute("SELECT id FROM orders"):
            await app.enqueue(agent, f"order {number}", key=f"o{number}", conn=connection)
        connection.commit()
    assert await keys(app) == {f"o{n}" for n in range(5)}


async def test_callers_rows_types_and_settings_stay_theirs(
    app: Durably, pg: PostgresBackend
) -> None:
    with psycopg.connect(pg.url, row_factory=namedtuple_row) as connection:
        set_json_loads(lambda text: ("theirs", text), connection)
        connection.execute("SET search_path = pg_catalog; SET timezone = 'Asia/Tokyo'")
        for _ in range(7):  # more often than it takes psycopg to prepare a statement
            before = connection.execute(LOOK).fetchone()
            await app.enqueue(agent, "hello", conn=connection)
            after = connection.execute(LOOK).fetchone()
            assert after == before
        assert (after.name, after.json) == ("text", ("theirs", b'{"a": 1}'))
        assert isinstance(after.uuid, UUID)
        connection.commit()
    assert len(await keys(app)) == 7


LOOK = """
SELECT 'text' AS name, '{"a": 1}'::jsonb AS json, '8d7a4c0e-0000-4000-8000-000000000000'::uuid,
       current_setting('timezone') AS zone, current_setting('search_path') AS path
"""


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
async def test_stricter_transactions_carry_runs_as_well(
    app: Durably, pg: PostgresBackend, level: str
) -> None:
    with pg.connect() as connection:
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
        await app.enqueue(agent, "hello", key="k", conn=connection)
        connection.commit()
    assert await keys(app) == {"k"}


async def test_enqueue_that_waits_for_another_transaction_lets_that_go_on(
    app: Durably, pg: PostgresBackend
) -> None:
    """Both are driven by one event loop."""
    with pg.connect() as first, pg.connect() as second:
        await app.enqueue(agent, "hello", key="k", conn=first)
        waiting = asyncio.create_task(app.enqueue(agent, "hello", key="k", conn=second))
        held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while pg.select(f"{held} AND datname = current_database()") != [(1,)]:
                await asyncio.sleep(0.01)
        first.commit()
        assert (await waiting).key == "k"


# --- what cannot carry a run


@pytest.mark.parametrize("options", [{"isolation_level": None}, {"autocommit": True}], ids=str)
async def test_sqlite_connection_without_a_transaction_is_refused(
    app: Durably, sqlite: SqliteBackend, options: dict[str, Any]
) -> None:
    """Each statement would be committed by itself: the run, and then perhaps its prompt."""
    with closing(sqlite3.connect(sqlite.url, **options)) as connection:
        await refused(app, connection, ConfigError, "conn has no open transaction")


async def refused(app: Durably, conn: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        await app.enqueue(agent, "hello", key="k", conn=conn)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert await keys(app) == set()


async def test_psycopg_connection_without_a_transaction_is_refused(
    app: Durably, pg: PostgresBackend
) -> None:
    says = "conn has no open transaction, and begins none by itself"
    with psycopg.connect(pg.url, autocommit=True) as connection:
        await refused(app, connection, ConfigError, says)
    async with await psycopg.AsyncConnection.connect(pg.url, autocommit=True) as connection:
        await refused(app, connection, ConfigError, says)
    engine = sqlalchemy.create_engine(alchemy_url(pg.url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        await refused(app, connection, ConfigError, says)
    engine.dispose()


async def test_transaction_that_has_failed_is_refused(app: Durably, pg: PostgresBackend) -> None:
    with psycopg.connect(pg.url) as connection:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1/0")
        await refused(app, connection, ConfigError, "conn's transaction has failed already")
        connection.rollback()
        await app.enqueue(agent, "hello", key="k", conn=connection)
        connection.commit()
    assert await keys(app) == {"k"}


async def test_transaction_that_may_not_write_is_refused(app: Durably, pg: PostgresBackend) -> None:
    with psycopg.connect(pg.url) as connection:
        connection.execute("SET TRANSACTION READ ONLY")
        await refused(app, connection, LedgerUnavailable, "read-only transaction")
        assert connection.execute("SELECT 1").fetchone() == (1,)


async def test_closed_connection_is_refused(app: Durably, pg: PostgresBackend) -> None:
    connection = psycopg.connect(pg.url)
    connection.close()
    await refused(app, connection, ConfigError, "conn is closed: the run could not be committed")


async def test_connection_that_cannot_say_every_character_is_refused(
    app: Durably, pg: PostgresBackend
) -> None:
    with psycopg.connect(f"{pg.url}?client_encoding=LATIN1") as connection:
        await refused(app, connection, ConfigError, "conn's client_encoding is LATIN1, which")


async def test_connection_to_another_file_is_refused(
    app: Durably, sqlite: SqliteBackend, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "other.db"
    async with Durably(str(elsewhere)) as other:
        with closing(sqlite3.connect(elsewhere)) as connection:
            says = f"conn is on {elsewhere}, not on the ledger's file"
            await refused(app, connection, ConfigError, says)
            connection.commit()
        assert await other.runs() == []
    with closing(sqlite3.connect(":memory:")) as connection:
        await refused(app, connection, ConfigError, "conn is on a database in memory")


@pytest.mark.parametrize("migrated", [True, False])
async def test_connection_to_another_database_is_refused(
    app: Durably, pg: PostgresBackend, postgres: Postgres, migrated: bool
) -> None:
    """Also to one with a ledger of its own; and the caller's transaction stays usable."""
    template = postgres.migrated if migrated else "template0"
    with postgres.database(template=template) as url:
        if migrated:
            with psycopg.connect(url) as connection:
                connection.execute("UPDATE durably_schema SET ledger_id = gen_random_uuid()")
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await refused(app, connection, ConfigError, "conn is on another database than the")
            await connection.execute("CREATE TABLE orders (id int)")
            await connection.commit()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)


async def test_ledger_attached_to_the_applications_connection_works(
    app: Durably, sqlite: SqliteBackend, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "own.db")) as connection:
        connection.execute("ATTACH ? AS ledger", (sqlite.url,))
        await app.enqueue(agent, "hello", key="k", conn=connection)
        connection.commit()
    assert await keys(app) == {"k"}


@pytest.mark.parametrize("conn", ["a string", 7, object()], ids=["text", "number", "object"])
async def test_what_is_no_connection_is_refused(
    app: Durably, backend: Backend, conn: object
) -> None:
    driver = "psycopg" if isinstance(backend, PostgresBackend) else "sqlite3"
    says = f"conn is a {type(conn).__name__}; pass an open {driver} connection"
    await refused(app, conn, TypeError, says)


async def test_connection_of_another_driver_is_refused_and_named(
    app: Durably, pg: PostgresBackend
) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        says = "conn is a sqlite3 Connection; pass an open psycopg connection"
        await refused(app, connection, TypeError, says)
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        await refused(app, connection, TypeError, "conn is a Connection on sqlite3; pass")
        assert not connection.in_transaction(), "it is left as it was"
    with Session(engine) as session:
        await refused(app, session, TypeError, "conn is a Session on sqlite3; pass")


async def test_psycopg_connection_is_none_of_a_sqlite_ledger(
    app: Durably, sqlite: SqliteBackend, wiped_url: str
) -> None:
    with psycopg.connect(wiped_url) as connection:
        await refused(app, connection, TypeError, "pass an open sqlite3 connection")
    engine = create_async_engine(alchemy_url(wiped_url))
    async with engine.connect() as connection:
        await refused(app, connection, TypeError, "conn is a AsyncConnection; pass an open sqlite3")
    await engine.dispose()


async def test_transaction_that_another_holds_up_says_so(
    app: Durably, sqlite: SqliteBackend
) -> None:
    with (
        closing(sqlite3.connect(sqlite.url, isolation_level=None)) as holder,
        closing(sqlite3.connect(sqlite.url, timeout=0.05)) as connection,
    ):
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="is locked by another process"):
            await app.enqueue(agent, "hello", key="k", conn=connection)
        holder.execute("ROLLBACK")
        await app.enqueue(agent, "hello", key="k", conn=connection)
        connection.commit()
    assert await keys(app) == {"k"}


async def test_full_file_leaves_nothing_in_the_transaction(
    app: Durably, sqlite: SqliteBackend
) -> None:
    with closing(sqlite3.connect(sqlite.url)) as connection:
        connection.execute("INSERT INTO orders VALUES (1)")
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerUnavailable, match="the disk is full"):
            await app.enqueue(agent, "x" * 1_000_000, key="k", conn=connection)
        connection.commit()
    assert await keys(app) == set()


async def test_ledger_that_would_have_to_be_made_inside_the_transaction_says_so(
    tmp_path: Path,
) -> None:
    """Making it would wait for the caller's own lock, which the caller holds until it is made."""
    path = tmp_path / "app.db"
    app = Durably(str(path), agents=[agent])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO orders VALUES (1)")
        with pytest.raises(ConfigError, match=r"call `await app\.open\(\)` before it begins"):
            await app.enqueue(agent, "hello", key="k", conn=connection)
        connection.commit()
        await app.open()
        await app.enqueue(agent, "hello", key="k", conn=connection)
        connection.commit()
    assert await keys(app) == {"k"}
    await app.close()
