"""SQLite's reader: what is brief is read in the event loop's thread, all else in another."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from functools import partial

import pytest

from durably.errors import LedgerClosed, LedgerUnavailable, RunNotFound
from durably.ledger import reads, runs
from durably.ledger.operations import Operation, brief
from durably.ledger.sqlite import loops
from durably.records import RunRecord
from support.ledgers import PATIENCE_SECONDS, Ledger, SqliteBackend, new_run

THREAD = "durably-reader"


class Threads:
    """Which threads read, by name."""

    def __init__(self) -> None:
        self.read: list[str] = []

    @brief
    def find(self, key: str) -> Operation[RunRecord]:
        return (yield from self.find_long(key))

    def find_long(self, key: str) -> Operation[RunRecord]:
        """The same, and nobody says that it is brief."""
        self.read.append(here())
        return (yield from reads.get_run(key))


@brief
def nothing() -> Operation[str]:
    yield from ()
    return "known"


@pytest.fixture
async def threads(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Threads:
    monkeypatch.setattr(loops, "SLOW_SECONDS", 3600.0)  # However slow the machine is.
    await ledger.write(runs.insert, new_run("a"))
    return Threads()


def here() -> str:
    return threading.current_thread().name


async def test_what_is_brief_is_read_on_its_loop(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    assert (await ledger.read(threads.find, "a")).key == "a"
    assert (await ledger.read(threads.find_long, "a")).key == "a"
    assert threads.read == [here(), THREAD]


async def test_ledger_that_is_told_so_leaves_event_loops_alone(
    sqlite: SqliteBackend, threads: Threads
) -> None:
    beside = sqlite.database.beside()
    await beside.open()
    await beside.read(threads.find, "a")
    await beside.close()
    assert threads.read == [THREAD]


async def test_who_reads_again_and_again_lets_others_have_their_turn(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().call_soon(over.set)
    for _ in range(10):
        await ledger.read(threads.find, "a")
        if over.is_set():
            return
    pytest.fail("nobody else had a turn")


async def test_what_was_written_is_read(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    """By whoever waited for the commit, and by whoever heard that another process committed."""
    for number in range(20):
        await ledger.write(runs.insert, new_run(f"{number}"))
        assert (await ledger.read(threads.find, f"{number}")).key == f"{number}"
    with closing(sqlite3.connect(sqlite.path)) as other:
        other.execute("UPDATE durably_runs SET priority = 7 WHERE key = 'a'")
        other.commit()
    assert (await ledger.read(threads.find, "a")).priority == 7
    assert set(threads.read) == {here()}


async def test_nobody_is_waited_for_who_writes(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert (await ledger.read(threads.find, "a")).key == "a"
        other.execute("ROLLBACK")
    assert threads.read == [here()]


@pytest.mark.parametrize(("seconds", "then"), [(3600.0, THREAD), (0.0, None)])
async def test_slow_reads_go_to_the_thread_for_some_time(
    seconds: float,
    then: str | None,
    ledger: Ledger,
    sqlite: SqliteBackend,
    threads: Threads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(loops, "THREAD_SECONDS", seconds)
    await ledger.read(threads.find, "a")
    await ledger.read(threads.find, "a")
    assert threads.read == [here(), then or here()]


async def test_what_is_not_there_is_said_at_once(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    with pytest.raises(RunNotFound):
        await ledger.read(threads.find, "nobody")
    assert (await ledger.read(threads.find, "a")).key == "a"
    assert threads.read == [here(), here()]


async def test_what_sqlite_refuses_an_event_loop_is_read_in_the_thread(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    """As while another process mends the log after a crash: there it is waited for."""

    @brief
    def find_if_waiting() -> Operation[RunRecord]:
        found = yield from threads.find("a")
        if here() != THREAD:
            raise sqlite3.OperationalError("database is locked")
        return found

    assert (await ledger.read(find_if_waiting)).key == "a"
    assert (await ledger.read(threads.find, "a")).key == "a"
    assert threads.read == [here(), THREAD, here()]


async def test_file_that_lost_its_name_is_not_read(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    away = sqlite.path.with_name("away")
    sqlite.path.rename(away)
    try:
        with pytest.raises(LedgerUnavailable, match="deleted or replaced"):
            await ledger.read(threads.find, "a")
    finally:
        away.rename(sqlite.path)
    assert threads.read == []


async def test_event_loops_read_at_the_same_time(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    """One of them reads where it is; the other does not wait for it."""
    reading, go_on = threading.Event(), threading.Event()

    @brief
    def find_slowly() -> Operation[RunRecord]:
        found = yield from threads.find("a")
        reading.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return found

    def read_slowly() -> RunRecord:
        return asyncio.run(sqlite.database.read(find_slowly))

    slow = asyncio.create_task(asyncio.to_thread(read_slowly))
    try:
        assert await asyncio.to_thread(reading.wait, PATIENCE_SECONDS)
        assert (await ledger.read(threads.find, "a")).key == "a"
    finally:
        go_on.set()
    assert (await slow).key == "a"
    assert threads.read[1:] == [THREAD]


async def test_nothing_is_read_once_it_is_closed(sqlite: SqliteBackend, threads: Threads) -> None:
    own = sqlite.database._reader  # pyright: ignore[reportPrivateUsage]
    assert own is not None
    await sqlite.database.close()
    with pytest.raises(LedgerClosed):
        await own.run(lambda: threads.find("a"), brief=True)
    assert threads.read == []


async def test_what_asks_for_nothing_is_answered(ledger: Ledger, sqlite: SqliteBackend) -> None:
    """As where to look for runs of whatever time; in the event loop and in the thread."""
    assert await ledger.read(nothing) == "known"
    assert await ledger.read(partial(nothing)) == "known"
