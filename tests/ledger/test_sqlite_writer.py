"""SQLite's writer: what is brief runs in the event loop's thread, commits never do."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager

import pytest

from durably import boundaries
from durably.errors import LedgerClosed
from durably.ledger import reads, runs
from durably.ledger.operations import Operation, brief
from durably.ledger.sqlite import loops, writer
from durably.ledger.sqlite.database import SqliteDatabase
from support.held import HeldWriters
from support.ledgers import PATIENCE_SECONDS, Ledger, SqliteBackend, new_run

THREAD = "durably-writer"


class Threads:
    """Which threads ran statements, and which committed, by name.

    Attributes:
        ran: by the key of what was written.
    """

    def __init__(self) -> None:
        self.ran: dict[str, list[str]] = {}
        self.committed: list[str] = []

    @brief
    def note(self, key: str, fails: bool = False) -> Operation[None]:
        """Write a run of this key, and note in which thread."""
        yield from self.note_long(key, fails)

    def note_long(self, key: str, fails: bool = False) -> Operation[None]:
        """The same, and nobody says that it is brief."""
        self.ran.setdefault(key, []).append(threading.current_thread().name)
        yield from runs.insert(new_run(key))
        if fails:
            raise ValueError(key)

    @contextmanager
    def watching(self) -> Generator[None]:
        def observe(name: str) -> None:
            if name == "commit:before":
                self.committed.append(threading.current_thread().name)

        boundaries.observe(observe)
        try:
            yield
        finally:
            boundaries.observe(None)


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Generator[Threads]:
    monkeypatch.setattr(loops, "SLOW_SECONDS", 3600.0)  # However slow the machine is.
    threads = Threads()
    with threads.watching():
        yield threads


def here() -> str:
    return threading.current_thread().name


async def stored(ledger: Ledger) -> set[str]:
    return {run.key for run in await ledger.read(reads.list_runs, *[None] * 5, 10_000)}


async def all_of(*writing: asyncio.Task[None]) -> list[BaseException | None]:
    return await asyncio.gather(*writing, return_exceptions=True)


# --- where


async def test_what_is_brief_is_written_on_its_loop_and_the_thread_commits(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    await ledger.write(threads.note, "a")
    assert threads.ran == {"a": [here()]}
    assert threads.committed == [THREAD]
    assert await stored(ledger) == {"a"}


async def test_other_writes_are_the_threads(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    await ledger.write(threads.note_long, "a")
    await asyncio.to_thread(sqlite.database.write_blocking, threads.note, "b")
    assert threads.ran == {"a": [THREAD], "b": [THREAD]}
    assert threads.committed == [THREAD] * 2


async def test_ledger_that_is_told_so_leaves_event_loops_alone(
    sqlite: SqliteBackend, threads: Threads
) -> None:
    """As that of a life that ends at a boundary, which is told by its threads."""
    beside = sqlite.database.beside()
    await beside.open()
    await beside.write(threads.note, "a")
    await beside.close()
    assert threads.ran == {"a": [THREAD]}


async def test_writes_that_wait_share_a_commit(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(writer.MAX_BATCH_ON_LOOP):
            tasks.create_task(ledger.write(threads.note, f"{number}"))
    assert len(threads.committed) == 1
    assert set(map(tuple, threads.ran.values())) == {(here(),)}
    assert len(await stored(ledger)) == writer.MAX_BATCH_ON_LOOP


async def test_event_loop_is_not_held_up_by_more_than_a_batch(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    between: list[int] = []

    async def go_on() -> None:
        while len(threads.ran) < 2 * writer.MAX_BATCH_ON_LOOP:
            between.append(len(threads.ran))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for number in range(2 * writer.MAX_BATCH_ON_LOOP):
            tasks.create_task(ledger.write(threads.note, f"{number}"))
        tasks.create_task(go_on())
    assert writer.MAX_BATCH_ON_LOOP in between, "other tasks had a turn"
    assert len(threads.committed) == 2


async def test_what_waits_with_others_is_the_threads_in_its_order(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    async with HeldWriters(ledger):
        writing = [
            asyncio.create_task(ledger.write(note, key))
            for note, key in ((threads.note, "a"), (threads.note_long, "b"), (threads.note, "c"))
        ]
        await asyncio.sleep(0)
    await all_of(*writing)
    assert list(threads.ran.items()) == [("a", [THREAD]), ("b", [THREAD]), ("c", [THREAD])]


# --- what an event loop never waits for


async def test_event_loop_waits_for_nobodys_lock(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    """What it asked for is done by the thread once the other process is through."""
    with closing(sqlite3.connect(sqlite.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(ledger.write(threads.note, "a"))
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not writing.done()
        assert threads.ran == {}, "nothing of it was begun"
        other.execute("ROLLBACK")
    await writing
    assert threads.ran == {"a": [THREAD]}
    assert await stored(ledger) == {"a"}


@pytest.mark.parametrize(("seconds", "then"), [(3600.0, THREAD), (0.0, None)])
async def test_slow_statements_go_to_the_thread_for_some_time(
    seconds: float,
    then: str | None,
    ledger: Ledger,
    sqlite: SqliteBackend,
    threads: Threads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A page that is not in memory is waited for; the event loop finds that out once, and later
    tries again."""
    monkeypatch.setattr(loops, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(loops, "THREAD_SECONDS", seconds)
    await ledger.write(threads.note, "a")
    await ledger.write(threads.note, "b")
    assert threads.ran == {"a": [here()], "b": [then or here()]}


# --- failing


async def test_failing_write_undoes_only_itself(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    """The thread finds out which it is, from the start."""
    writing = [
        asyncio.create_task(ledger.write(threads.note, key, key == "bad"))
        for key in ("before", "bad", "after")
    ]
    before, bad, after = await all_of(*writing)
    assert isinstance(bad, ValueError)
    assert (before, after) == (None, None)
    assert await stored(ledger) == {"before", "after"}
    assert threads.ran["before"] == [here(), THREAD, THREAD]


async def test_write_that_fails_alone_leaves_nothing(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    with pytest.raises(ValueError, match="bad"):
        await ledger.write(threads.note, "bad", True)
    await ledger.write(threads.note, "next")
    assert await stored(ledger) == {"next"}


async def test_interrupted_event_loop_leaves_the_batch_to_the_thread(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    """As ^C may, in any line; what it broke off in the middle is done from the start."""
    interrupted: list[str] = []

    @brief
    def interrupting(key: str) -> Operation[None]:
        yield from threads.note(key)
        if not interrupted:
            interrupted.append(key)
            raise KeyboardInterrupt

    def in_its_own_loop() -> None:
        asyncio.run(database.write(interrupting, "a"))

    database = sqlite.database
    with pytest.raises(KeyboardInterrupt):
        await asyncio.to_thread(raising, in_its_own_loop)
    await ledger.write(threads.note, "b")
    assert await stored(ledger) == {"a", "b"}
    assert threads.ran["a"][1:] == [THREAD]


def raising(work: Callable[[], None]) -> None:
    """A thread pool would let KeyboardInterrupt end the loop that asked."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise caught[0]


# --- several event loops


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def write(self, database: SqliteDatabase, threads: Threads, key: str) -> None:
        work = database.write(threads.note, key)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))


async def test_each_event_loop_runs_its_own(sqlite: SqliteBackend, threads: Threads) -> None:
    with Loop("one") as one, Loop("two") as two:
        for number in range(3):
            await one.write(sqlite.database, threads, f"one-{number}")
            await two.write(sqlite.database, threads, f"two-{number}")
    assert threads.ran == {f"{n}-{i}": [n] for n in ("one", "two") for i in range(3)}
    assert set(threads.committed) == {THREAD}


async def test_event_loops_that_write_at_once_lose_nothing(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    """They get into each other's way: then the thread does what waits."""
    keys = [f"{number}" for number in range(300)]
    with Loop("one") as one, Loop("two") as two:
        loops = (one, two)
        writing = [
            asyncio.create_task(loops[number % 2].write(sqlite.database, threads, key))
            for number, key in enumerate(keys)
        ]
        assert await all_of(*writing) == [None] * len(keys)
    assert await stored(ledger) == set(keys)
    ran = {name for names in threads.ran.values() for name in names}
    assert ran <= {"one", "two", THREAD}
    assert set(threads.committed) == {THREAD}


async def test_event_loop_that_stands_still_holds_up_nobody(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    standing, go_on = threading.Event(), threading.Event()
    tasks: list[asyncio.Task[None]] = []

    def stand_still() -> None:
        standing.set()
        assert go_on.wait(PATIENCE_SECONDS)

    def ask_and_stand_still(loop: asyncio.AbstractEventLoop) -> None:
        # In the turn after the one in which it asks, ahead of what it was to begin there.
        loop.call_soon(loop.call_soon, stand_still)
        tasks.append(loop.create_task(sqlite.database.write(threads.note, "one")))

    with Loop("one") as one:
        one.loop.call_soon_threadsafe(ask_and_stand_still, one.loop)
        try:
            assert await asyncio.to_thread(standing.wait, PATIENCE_SECONDS)
            await ledger.write(threads.note, "here")
        finally:
            go_on.set()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_end(tasks[0]), one.loop))
    assert threads.ran == {"one": [THREAD], "here": [THREAD]}
    assert await stored(ledger) == {"one", "here"}


async def _end(task: asyncio.Task[None]) -> None:
    await task


async def test_event_loop_that_is_closed_holds_up_nobody(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    async def leave() -> None:
        asyncio.get_running_loop().create_task(database.write(threads.note, "left"))
        await asyncio.sleep(0)  # It has asked, and nobody waits for it any more.

    database = sqlite.database
    await asyncio.to_thread(asyncio.run, leave())
    await ledger.write(threads.note, "here")
    assert "here" in await stored(ledger)


# --- closing


async def test_closing_does_what_has_been_asked_for(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    writing = [
        asyncio.create_task(ledger.write(threads.note, f"{number}"))
        for number in range(2 * writer.MAX_BATCH_ON_LOOP)
    ]
    await asyncio.sleep(0)
    await sqlite.database.close()
    assert await all_of(*writing) == [None] * len(writing)
    await sqlite.database.open()
    assert len(await stored(ledger)) == len(writing)


async def test_nothing_is_asked_of_a_writer_that_is_closed(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    own = sqlite.database._writer  # pyright: ignore[reportPrivateUsage]
    assert own is not None
    await sqlite.database.close()
    with pytest.raises(LedgerClosed):
        await own.run(lambda: threads.note("late"), brief=True)
    with pytest.raises(LedgerClosed):
        own.submit(lambda: threads.note("late"))


async def test_cancelled_write_that_has_not_begun_is_not_done(
    ledger: Ledger, sqlite: SqliteBackend, threads: Threads
) -> None:
    async with HeldWriters(ledger):
        writing = asyncio.create_task(ledger.write(threads.note, "cancelled"))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.sleep(0)
    await ledger.write(threads.note, "next")
    assert writing.cancelled()
    assert await stored(ledger) == {"next"}
