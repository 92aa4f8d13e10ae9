"""Change notices: at once in this process, soon from any other, free when nobody listens."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest

from durably.ledger import attempts, runs, steps
from durably.ledger.sqlite.database import SqliteDatabase
from durably.ledger.written import Step
from support.ledgers import PATIENCE_SECONDS, Ledger, SqliteBackend, message, new_run, until
from support.processes import LedgerProcess

NEVER_SECONDS = 3600.0

TRIES = 100


def watchers() -> set[threading.Thread]:
    names = ("durably-watch", "durably-listen")
    return {thread for thread in threading.enumerate() if thread.name in names}


async def test_own_commit_is_told_at_once(sqlite: SqliteBackend) -> None:
    """Not by looking: this one would look in an hour."""
    database = SqliteDatabase(sqlite.path, watch_seconds=NEVER_SECONDS)
    await database.open()
    told = threading.Event()
    with database.subscribe(told.set):
        await database.write(runs.insert, new_run("r"))
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
    await database.close()


async def test_commit_of_another_process_is_told_soon(ledger: Ledger) -> None:
    told = threading.Event()
    with (
        ledger.database.subscribe(told.set),
        LedgerProcess("insert", ledger.backend.url, "p", "1") as process,
    ):
        assert await asyncio.to_thread(process.hear) == "ready"
        told.clear()
        process.go()
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
        assert await asyncio.to_thread(process.result) == ["p-0"]


async def test_commit_right_after_subscribing_is_told(ledger: Ledger) -> None:
    """Before the watcher has looked once, and on a connection of the application's own."""
    with ledger.backend.connect() as connection:
        await ledger.database.run_on(connection, runs.insert(new_run("r")))
        told = threading.Event()
        with ledger.database.subscribe(told.set):
            connection.commit()
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


async def test_progress_of_a_run_is_told_to_those_who_follow_it(ledger: Ledger) -> None:
    run = await ledger.executing()
    news, followed = threading.Event(), threading.Event()
    database = ledger.database
    with database.subscribe(news.set), database.subscribe(followed.set, progress=True):
        for seq in range(TRIES):
            news.clear()
            followed.clear()
            await database.write(steps.record_step, run.claim, Step(messages=(message(seq),)))
            assert await asyncio.to_thread(followed.wait, PATIENCE_SECONDS)
            if not news.is_set():
                break  # At first everybody is told, whatever was committed.
        else:
            pytest.fail("everybody is told of every step")
        followed.clear()
        await ledger.insert()
        assert await asyncio.to_thread(news.wait, PATIENCE_SECONDS)
        assert followed.is_set()


async def test_other_processs_commit_beside_own_progress_is_told(sqlite: SqliteBackend) -> None:
    """Found out with the own commit, not by looking: this one would look in an hour."""
    database, other = (
        SqliteDatabase(sqlite.path, watch_seconds=NEVER_SECONDS),
        SqliteDatabase(sqlite.path),
    )
    await database.open()
    await other.open()
    await database.write(runs.insert, new_run("r"))
    (run,) = await database.write(attempts.claim, "w1", "agents", 1)
    told = threading.Event()
    with database.subscribe(told.set):
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS), "the first look"
        told.clear()
        await other.write(runs.insert, new_run("another's"))
        await database.write(steps.record_step, run.claim, Step(messages=(message(0),)))
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
    await other.close()
    await database.close()


async def test_other_processs_commit_right_after_a_lone_one_is_told(sqlite: SqliteBackend) -> None:
    """A heartbeat keeps no run waiting: on Linux this one is told, and looks in an hour."""
    seconds = NEVER_SECONDS if sys.platform == "linux" else 0.1
    database = SqliteDatabase(sqlite.path, watch_seconds=seconds)
    other = SqliteDatabase(sqlite.path)
    await database.open()
    await other.open()
    told = threading.Event()
    with database.subscribe(told.set):
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS), "the first look"
        await database.write(runs.insert, new_run("own"))
        told.clear()
        await other.write(runs.insert, new_run("another's"))
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
    await other.close()
    await database.close()


async def test_closing_while_the_watcher_looks(sqlite: SqliteBackend) -> None:
    """It looks on the writer's connection, which must not be closed under it."""
    other = SqliteDatabase(sqlite.path)
    await other.open()
    for round in range(60):
        database = SqliteDatabase(sqlite.path, watch_seconds=0.0005)
        await database.open()
        with database.subscribe(lambda: None):
            keys = [f"r{round}-{number}" for number in range(5)]
            writes = [other.write(runs.insert, new_run(key)) for key in keys]
            committing = asyncio.gather(*writes)
            await asyncio.sleep(0.002)
            await database.close()
            await committing
    await other.close()


async def test_nobody_watches_while_nobody_listens(ledger: Ledger) -> None:
    before = watchers()  # of earlier tests, about to end
    with ledger.database.subscribe(lambda: None):
        with ledger.database.subscribe(lambda: None):
            assert len(watchers() - before) == 1, "one thread serves all who listen"
        assert len(watchers() - before) == 1
    await until(lambda: not watchers() - before, "the watcher ends with the last listener")
    with ledger.database.subscribe(lambda: None):
        assert len(watchers() - before) == 1


async def test_listener_that_left_is_told_nothing_more(ledger: Ledger) -> None:
    stays, left = threading.Event(), threading.Event()
    with ledger.database.subscribe(stays.set):
        with ledger.database.subscribe(left.set):
            pass
        left.clear()
        await ledger.insert()
        assert await asyncio.to_thread(stays.wait, PATIENCE_SECONDS)
    assert not left.is_set()


async def test_listener_that_fails_stops_neither_the_others_nor_the_writer(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("this listener's loop is closed")

    told = threading.Event()
    with ledger.database.subscribe(fail), ledger.database.subscribe(told.set):
        await asyncio.wait_for(ledger.insert(), PATIENCE_SECONDS)
        assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)
        await asyncio.wait_for(ledger.insert(), PATIENCE_SECONDS)
    assert "this listener's loop is closed" in caplog.text


async def test_listeners_survive_closing_and_opening_again(ledger: Ledger) -> None:
    told = threading.Event()
    with ledger.database.subscribe(told.set):
        await ledger.database.close()
        await ledger.database.open()
        with LedgerProcess("insert", ledger.backend.url, "p", "1") as process:
            assert await asyncio.to_thread(process.hear) == "ready"
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS), "the first look"
            told.clear()
            process.go()
            assert await asyncio.to_thread(process.result) == ["p-0"]
            assert await asyncio.to_thread(told.wait, PATIENCE_SECONDS)


async def test_listening_costs_next_to_nothing(ledger: Ledger) -> None:
    """Says what it costs; how fast the machine is fails no test."""
    with ledger.database.subscribe(lambda: None):
        await asyncio.to_thread(time.sleep, 0.2)  # not counted: the thread opens its connection
        cpu, wall = time.process_time(), time.monotonic()
        await asyncio.to_thread(time.sleep, 1.0)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    print(f"an idle listener takes {100 * cpu / wall:.2f} % of one core")
