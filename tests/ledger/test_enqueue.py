"""Enqueuing: one run per key, nothing half done, and the application's own transaction decides."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from sqlalchemy.orm import Session

from durably import ConfigError, Durably, KeyConflict, LedgerUnavailable, RunNotFound, RunState
from support.ledgers import PATIENCE_SECONDS, Clock

type Commit = Callable[[], None]
type Opened = tuple[Any, Commit, Commit, Callable[[str], object]]


def say_ok(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
    return ModelResponse(parts=[TextPart("ok")])


agent = Agent(FunctionModel(say_ok), name="clerk")
other_agent = Agent(FunctionModel(say_ok), name="cook")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
async def app(path: Path) -> AsyncGenerator[Durably]:
    async with Durably(str(path), agents=[agent, other_agent]) as app:
        yield app


async def keys(app: Durably) -> set[str]:
    return {run.key for run in await app.runs(limit=1000)}


# --- keys


async def test_same_key_and_content_give_the_same_run(app: Durably) -> None:
    first = await app.enqueue(agent, "hello", key="k", args={"a": 1, "b": [2]})
    again = await app.enqueue("clerk", "hello", key="k", args={"b": [2], "a": 1})
    assert again.record == first.record
    assert await keys(app) == {"k"}


async def test_finished_run_is_returned_with_its_output(app: Durably) -> None:
    await app.enqueue(agent, "hello", key="k")
    await app.drain()
    again = await app.enqueue(agent, "hello", key="k")
    assert await again.result(timeout=PATIENCE_SECONDS) == "ok"
    assert await app.drain() == 0


@pytest.mark.parametrize(
    ("who", "prompt", "args", "what"),
    [
        (other_agent, "hello", {}, r"agent \('clerk'\)"),
        (agent, "goodbye", {}, "prompt"),
        (agent, "hello", {"a": 1}, "args"),
        (other_agent, "goodbye", {"a": 1}, r"agent \('clerk'\) and prompt and args"),
    ],
    ids=["agent", "prompt", "args", "all"],
)
async def test_key_of_another_run_is_refused(
    app: Durably, who: Agent, prompt: str, args: dict[str, Any], what: str
) -> None:
    await app.enqueue(agent, "hello", key="k")
    with pytest.raises(KeyConflict, match=f"'k' belongs to a run with another {what};"):
        await app.enqueue(who, prompt, key="k", args=args)
    assert await keys(app) == {"k"}


async def test_many_who_enqueue_one_key_at_once_get_one_run(app: Durably) -> None:
    runs = await asyncio.gather(*(app.enqueue(agent, "hello", key="k") for _ in range(50)))
    assert len({run.record.id for run in runs}) == 1


async def test_run_without_a_key_is_always_a_new_one(app: Durably) -> None:
    first, second = [await app.enqueue(agent, "hello") for _ in range(2)]
    assert first.key != second.key


async def test_unique_for_returns_the_twin_of_the_last_seconds(path: Path) -> None:
    clock = Clock()
    app = Durably(str(path), agents=[agent])
    app.ledger._clock = clock  # type: ignore[attr-defined]  # pyright: ignore
    first = await app.enqueue(agent, "hello", unique_for=60)
    clock.advance(59)
    twin = await app.enqueue(agent, "hello", unique_for=60)
    different = await app.enqueue(agent, "hello", args={"a": 1}, unique_for=60)
    clock.advance(2)
    later = await app.enqueue(agent, "hello", unique_for=60)
    assert twin.key == first.key
    assert len({first.key, different.key, later.key}) == 3
    await app.close()


# --- what cannot work


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scheduled_at": datetime(2030, 1, 1)}, "scheduled_at has no time zone"),
        ({"args": {"a": object()}}, "args= must be a JSON object"),
        ({"args": {"a": float("nan")}}, "args= must be a JSON object"),
        ({"args": [1]}, "args= must be a JSON object"),
        ({"meta": {"a": {1}}}, "meta= must be a JSON object"),
        ({"key": " "}, "key is empty"),
        ({"key": "k", "unique_for": 1.0}, "not both"),
        ({"priority": 10}, "priority=10"),
        ({"priority": -1}, "priority=-1"),
        ({"max_attempts": 0}, "max_attempts=0"),
        ({"delay": float("nan")}, "delay=nan"),
        ({"delay": float("inf")}, "delay=inf"),
        ({"delay": 1e15}, "delay=1000000000000000"),
        ({"delay": -1.0}, "delay=-1"),
        ({"unique_for": float("nan")}, "unique_for=nan"),
        ({"unique_for": -1.0}, "unique_for=-1"),
        ({"key": "\ud800"}, "key"),
    ],
)
async def test_option_that_cannot_work_is_refused_and_stores_nothing(
    app: Durably, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        await app.enqueue(agent, "hello", **options)
    assert await keys(app) == set()


async def test_scheduled_run_waits_for_its_time(app: Durably) -> None:
    due = datetime.now(UTC) + timedelta(days=1)
    run = await app.enqueue(agent, "hello", scheduled_at=due.astimezone())
    assert (run.state, run.record.scheduled_at) == (RunState.SCHEDULED, due)
    delayed = await app.enqueue(agent, "hello", delay=3600)
    assert delayed.state is RunState.SCHEDULED
    assert await app.drain() == 0


async def test_prompt_of_10_mb_goes_through_enqueue_run_and_history(app: Durably) -> None:
    prompt = "0123456789" * 1_000_000
    run = await app.enqueue(agent, prompt, key="k")
    assert await app.drain() == 1
    assert await run.result(timeout=PATIENCE_SECONDS) == "ok"
    assert await run.prompt() == prompt
    first = (await run.history())[0]
    assert isinstance(first, ModelRequest)
    assert first.parts[0].content == prompt
    again = await app.enqueue(agent, prompt, key="k")
    assert again.record.id == run.record.id


# --- the application's own transaction


@contextmanager
def plain(path: Path, **options: Any) -> Generator[Opened]:
    with closing(sqlite3.connect(path, **options)) as connection:
        if connection.isolation_level is None:
            connection.execute("BEGIN")
        yield connection, connection.commit, connection.rollback, connection.execute


@contextmanager
def manual(path: Path) -> Generator[Opened]:
    with plain(path, isolation_level=None) as opened:
        yield opened


@contextmanager
def modern(path: Path) -> Generator[Opened]:
    with plain(path, autocommit=False) as opened:
        yield opened


@contextmanager
def alchemy_connection(path: Path) -> Generator[Opened]:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:

        def execute(sql: str) -> object:
            return connection.execute(sqlalchemy.text(sql))

        yield connection, connection.commit, connection.rollback, execute
    engine.dispose()


@contextmanager
def alchemy_session(path: Path) -> Generator[Opened]:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with Session(engine) as session:

        def execute(sql: str) -> object:
            return session.execute(sqlalchemy.text(sql))

        yield session, session.commit, session.rollback, execute
    engine.dispose()


WAYS = [plain, manual, modern, alchemy_connection, alchemy_session]


@pytest.fixture(params=WAYS, ids=[way.__name__ for way in WAYS])
def opening(
    request: pytest.FixtureRequest, path: Path, app: Durably
) -> Callable[[], AbstractContextManager[Opened]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
    return lambda: request.param(path)


def orders(path: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id FROM orders").fetchall()


type Opening = Callable[[], AbstractContextManager[Opened]]


async def test_rolled_back_transaction_leaves_no_run(
    app: Durably, path: Path, opening: Opening
) -> None:
    with opening() as (conn, _, rollback, execute):
        run = await app.enqueue(agent, "hello", key="first", conn=conn)
        execute("INSERT INTO orders VALUES (1)")
        await app.enqueue(agent, "hello", key="second", conn=conn)
        assert run.key == "first"
        rollback()
    assert orders(path) == []
    assert await keys(app) == set()
    with pytest.raises(RunNotFound):
        await app.get("first")


async def test_committed_transaction_starts_the_run(
    app: Durably, path: Path, opening: Opening
) -> None:
    async with app.worker():
        with opening() as (conn, commit, _, execute):
            execute("INSERT INTO orders VALUES (1)")
            run = await app.enqueue(agent, "hello", key="k", conn=conn)
            assert await keys(app) == set(), "not before the commit"
            commit()
        assert await run.result(timeout=PATIENCE_SECONDS) == "ok"
    assert orders(path) == [(1,)]


async def test_existing_run_is_found_and_checked_inside_the_transaction(
    app: Durably, opening: Opening
) -> None:
    with opening() as (conn, commit, _, execute):
        first = await app.enqueue(agent, "hello", key="k", conn=conn)
        again = await app.enqueue(agent, "hello", key="k", conn=conn)
        assert again.record == first.record
        with pytest.raises(KeyConflict):
            await app.enqueue(agent, "goodbye", key="k", conn=conn)
        execute("INSERT INTO orders VALUES (1)")
        commit()
    assert await keys(app) == {"k"}


async def test_runs_are_enqueued_while_a_cursor_is_read(app: Durably, path: Path) -> None:
    """One run for each row of a query: the natural loop."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO orders VALUES (?)", [(n,) for n in range(5)])
        connection.commit()
        for (number,) in connection.execute("SELECT id FROM orders"):
            await app.enqueue(agent, f"order {number}", key=f"o{number}", conn=connection)
        connection.commit()
    assert await keys(app) == {f"o{n}" for n in range(5)}


async def test_enqueue_that_fails_leaves_nothing_in_the_transaction(
    app: Durably, path: Path
) -> None:
    """The caller may go on and commit: there must be no run without its prompt."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO orders VALUES (1)")
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerUnavailable, match="the disk is full"):
            await app.enqueue(agent, "x" * 1_000_000, key="k", conn=connection)
        connection.commit()
    assert await keys(app) == set()


@pytest.mark.parametrize("options", [{"isolation_level": None}, {"autocommit": True}], ids=str)
async def test_connection_without_a_transaction_is_refused(
    app: Durably, path: Path, options: dict[str, Any]
) -> None:
    """Each statement would be committed by itself: the run, and then perhaps its prompt."""
    with (
        closing(sqlite3.connect(path, **options)) as connection,
        pytest.raises(ConfigError, match="conn has no open transaction"),
    ):
        await app.enqueue(agent, "hello", key="k", conn=connection)
    assert await keys(app) == set()


async def test_connection_to_another_file_is_refused(app: Durably, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other.db"
    async with Durably(str(elsewhere)) as other:
        with closing(sqlite3.connect(elsewhere)) as connection:
            with pytest.raises(ConfigError, match=r"conn is on .*other\.db, not on the ledger's"):
                await app.enqueue(agent, "hello", key="k", conn=connection)
            connection.commit()
        assert await other.runs() == []
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(ConfigError, match="conn is on a database in memory"),
    ):
        await app.enqueue(agent, "hello", conn=connection)


async def test_ledger_attached_to_the_applications_connection_works(
    app: Durably, path: Path, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "own.db")) as connection:
        connection.execute("ATTACH ? AS ledger", (str(path),))
        await app.enqueue(agent, "hello", key="k", conn=connection)
        connection.commit()
    assert await keys(app) == {"k"}


@pytest.mark.parametrize("conn", ["a string", 7, object()])
async def test_what_is_no_connection_is_refused(app: Durably, conn: object) -> None:
    with pytest.raises(TypeError, match="pass an open sqlite3 connection"):
        await app.enqueue(agent, "hello", conn=conn)


async def test_transaction_that_another_holds_up_says_so(app: Durably, path: Path) -> None:
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as holder,
        closing(sqlite3.connect(path, timeout=0.05)) as connection,
    ):
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="is locked by another process"):
            await app.enqueue(agent, "hello", key="k", conn=connection)
        holder.execute("ROLLBACK")
        await app.enqueue(agent, "hello", key="k", conn=connection)
        connection.commit()
    assert await keys(app) == {"k"}


async def test_ledger_that_would_have_to_be_made_inside_the_transaction_says_so(
    path: Path,
) -> None:
    """Making it would wait for the caller's own lock, which the caller holds until it is made."""
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
