"""Notices on PostgreSQL: heard at once, and looked for wherever they cannot be heard."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import psycopg
import pytest

from durably.ledger import attempts, runs, steps
from durably.ledger.postgres import hearing, telling
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.postgres.telling import Echo
from durably.ledger.written import Step
from durably.records import Claim
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
from support.pg_proxy import NOTIFICATION, PgProxy
from support.postgres_server import PostgresServer
from support.processes import LedgerProcess

TRIES = 100

NEVER_SECONDS = 3600.0


def pids(url: str, query: str) -> set[int]:
    """The server's processes whose last statement was like this one."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND query LIKE %s",
            (query,),
        ).fetchall()
    return {pid for (pid,) in rows}


def listening(url: str) -> set[int]:
    return pids(url, "LISTEN %")


@contextmanager
def told_by(database: PostgresDatabase, url: str) -> Generator[threading.Event]:
    """An event that is set by news, once the database listens and has looked for the first time."""
    told = threading.Event()
    with database.subscribe(told.set):
        assert told.wait(PATIENCE_SECONDS), "the first look"
        assert listening(url)
        told.clear()
        yield told


async def other_process_commits(url: str, name: str = "p") -> None:
    with LedgerProcess("insert", url, name, "1") as process:
        assert await asyncio.to_thread(process.hear) == "ready"
        process.go()
        assert await asyncio.to_thread(process.result) == [f"{name}-0"]


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[PostgresDatabase]:
    database = PostgresDatabase(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
def only_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks by himself does so in an hour."""
    monkeypatch.setattr(hearing, "POLL_SECONDS", NEVER_SECONDS)


# --- heard


@pytest.mark.usefixtures("only_notices")
async def test_other_processs_commit_is_heard_and_not_looked_for(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    with told_by(pg.database, pg.url) as told:
        await other_process_commits(pg.url)
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


@pytest.mark.usefixtures("only_notices")
async def test_commit_of_the_applications_own_transaction_is_heard(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    with told_by(pg.database, pg.url) as told:
        with pg.connect() as connection:
            await ledger.database.run_on(connection, runs.insert(new_run("r")))
            connection.commit()
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


@pytest.mark.usefixtures("only_notices")
async def test_notice_whose_connection_is_lost_is_sent_on_another(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    async with opened(pg.url) as other:
        with told_by(pg.database, pg.url) as told:
            await other.write(runs.insert, new_run("first"))
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
            told.clear()
            terminate(pg.url, pids(pg.url, "BEGIN; SET LOCAL synchronous_commit%"))
            await other.write(runs.insert, new_run("second"))
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


@pytest.mark.usefixtures("only_notices")
async def test_closing_waits_for_no_look(pg: PostgresBackend) -> None:
    async with opened(pg.url) as database:
        with told_by(database, pg.url):
            await asyncio.wait_for(database.close(), PATIENCE_SECONDS)
            assert not [t for t in threading.enumerate() if t.name == "durably-listen"]


async def test_server_that_ends_the_listening_connection_is_listened_to_again(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    with told_by(pg.database, pg.url) as told:
        lost = listening(pg.url)
        terminate(pg.url, lost)
        await until(lambda: bool(listening(pg.url) - lost), "it listens on another connection")
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS), "news meanwhile, perhaps"
        told.clear()
        await other_process_commits(pg.url)
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


async def test_server_that_restarts_is_listened_to_again(own_postgres: PostgresServer) -> None:
    url = own_postgres.url()
    async with opened_new(url) as database, opened(url) as other:
        with told_by(database, url) as told:
            await asyncio.to_thread(own_postgres.stop, "fast")
            told.clear()
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS), "meanwhile it looks"
            await asyncio.to_thread(own_postgres.start)
            await until(lambda: bool(listening(url)), "it listens again")
            told.clear()
            await other.write(runs.insert, new_run("r"))
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


@asynccontextmanager
async def opened_new(url: str) -> AsyncGenerator[PostgresDatabase]:
    """A ledger, made first."""
    database = PostgresDatabase(url)
    await database.migrate()
    try:
        yield database
    finally:
        await database.close()


async def test_progress_elsewhere_is_told_to_those_who_follow(pg: PostgresBackend) -> None:
    async with opened(pg.url) as database, opened(pg.url) as other:
        await other.write(runs.insert, new_run("r"))
        (run,) = await other.write(attempts.claim, "w1", "agents", 1)
        news, followed = threading.Event(), threading.Event()
        with database.subscribe(news.set), database.subscribe(followed.set, progress=True):
            await until(lambda: bool(listening(pg.url)), "it listens")
            for seq in range(TRIES):
                news.clear()
                followed.clear()
                await other.write(steps.record_step, run.claim, Step(messages=(message(seq),)))
                assert await asyncio.to_thread(followed.wait, PATIENCE_SECONDS)
                if not news.is_set():
                    break  # What was committed before is told as well.
            else:
                pytest.fail("everybody is told of every step")
            await other.write(runs.insert, new_run("another"))
            assert await asyncio.to_thread(news.wait, PATIENCE_SECONDS)


async def test_tool_in_its_transaction_is_news_to_all_if_it_enqueues(pg: PostgresBackend) -> None:
    async with opened(pg.url) as database:
        await database.write(runs.insert, new_run("r"))
        (run,) = await database.write(attempts.claim, "w1", "agents", 1)
        news, followed = threading.Event(), threading.Event()
        with database.subscribe(news.set), database.subscribe(followed.set, progress=True):
            for seq in range(TRIES):
                news.clear()
                followed.clear()
                await work_in_transaction(database, run.claim, seq)
                assert followed.is_set()
                if not news.is_set():
                    break  # What was committed before is told as well.
            else:
                pytest.fail("everybody is told of every call")
            await work_in_transaction(database, run.claim, TRIES, "another")
            assert await asyncio.to_thread(news.wait, PATIENCE_SECONDS)


async def work_in_transaction(
    database: PostgresDatabase, claim: Claim, seq: int, *keys: str
) -> None:
    transaction = database.transaction()
    connection = await transaction.begin_async()
    for key in keys:
        await database.run_on(connection, runs.insert(new_run(key)))
    recording = steps.record_outcome(claim, done(tool_call(seq)))
    await transaction.commit(recording, progress=True)
    await transaction.close()


# --- not heard


async def test_without_notices_other_processs_commits_are_looked_for(pg: PostgresBackend) -> None:
    async with opened(f"{pg.url}?notify=off") as database:
        told = threading.Event()
        with database.subscribe(told.set):
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
            told.clear()
            await database.write(runs.insert, new_run("own"))
            assert told.is_set(), "its own commits are told at once"
            told.clear()
            await other_process_commits(f"{pg.url}?notify=off")
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
            assert not listening(pg.url)
            assert not pids(pg.url, "%pg_notify%durably%")


async def test_notices_that_do_not_arrive_are_missed_and_looked_for(
    pg: PostgresBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a pooler in transaction mode; it says so once, and hears them when they do."""
    monkeypatch.setattr(telling, "ECHO_SECONDS", 0.1)
    monkeypatch.setattr(hearing, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(hearing, "HEAR_AGAIN_SECONDS", 0.1)
    caplog.set_level(logging.INFO, logger="durably.ledger.postgres")
    with PgProxy(pg.url) as pooler:
        pooler.swallow.add(NOTIFICATION)
        async with opened(pooler.url) as database:
            told, tries = threading.Event(), set[int]()

            def has_tried_again() -> bool:
                tries.update(listening(pg.url))
                return len(tries) >= 3

            with database.subscribe(told.set):
                await until(has_tried_again, "it gives up, and tries to listen again, twice")
                told.clear()
                await other_process_commits(pg.url)
                assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
                (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
                assert "notices don't arrive, as behind a pooler" in warning.getMessage()

                monkeypatch.setattr(telling, "ECHO_SECONDS", NEVER_SECONDS)
                pooler.swallow.clear()
                pooler.cut()
                await until(lambda: pooler.passed[NOTIFICATION] > 0, "it hears itself")
                monkeypatch.setattr(hearing, "POLL_SECONDS", NEVER_SECONDS)
                told.clear()
                await other_process_commits(pg.url, "q")
                assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


def test_echo_that_comes_before_its_notice_is_known_to_be_sent_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads: the one that hears may be quicker than the one that has sent."""
    monkeypatch.setattr(telling, "ECHO_SECONDS", 0.0)
    echo = Echo()
    number, payload = echo.next(progress=False)
    assert echo.heard(payload)
    echo.sent(number)
    assert not echo.lost
    number, payload = echo.next(progress=False)
    echo.sent(number)
    assert echo.lost
    assert not Echo().heard(payload)
    assert echo.heard(payload)
    assert not echo.lost


def terminate(url: str, pids: set[int]) -> None:
    assert pids
    with psycopg.connect(url) as connection:
        for pid in pids:
            connection.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
