"""Group commit: writes share commits, fail alone, and are told only what is durable."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from durably import boundaries
from durably.errors import LedgerClosed, LedgerUnavailable
from durably.ledger import reads, runs
from durably.ledger.database import Database
from durably.ledger.lanes import MAX_BATCH
from durably.ledger.operations import Operation
from durably.lifecycle import RunState
from support.held import HeldWriters
from support.ledgers import PATIENCE_SECONDS, Ledger, SqliteBackend, new_run
from support.processes import all_at_once


@contextmanager
def observing(observer: Callable[[str], None]) -> Generator[None]:
    boundaries.observe(observer)
    try:
        yield
    finally:
        boundaries.observe(None)


async def together(
    ledger: Ledger, *operations: Callable[[], Operation[object]]
) -> list[object | BaseException]:
    """Submit all while the writers are busy; their results once they are told."""
    async with HeldWriters(ledger):
        tasks = [asyncio.create_task(ledger.write(operation)) for operation in operations]
        await asyncio.sleep(0)  # each task runs up to its wait for a writer
    return await asyncio.gather(*tasks, return_exceptions=True)


def inserting(key: str) -> Callable[[], Operation[object]]:
    return lambda: runs.insert(new_run(key))


def inserting_then_failing(key: str) -> Callable[[], Operation[object]]:
    def operation() -> Operation[object]:
        yield from runs.insert(new_run(key))
        raise ValueError(key)

    return operation


async def stored(ledger: Ledger) -> set[str]:
    return {run.key for run in await ledger.read(reads.list_runs, *[None] * 5, 10_000)}


async def test_writes_that_wait_share_one_commit(ledger: Ledger) -> None:
    reached: Counter[str] = Counter()
    with observing(lambda name: reached.update([name])):
        await together(ledger, *(inserting(f"r{n}") for n in range(100)))
    held = ledger.backend.writers
    assert held < reached["commit:after"] <= 2 * held, "those that were held, then one of each"
    assert await stored(ledger) == {f"r{n}" for n in range(100)}


async def test_batch_is_bounded(ledger: Ledger) -> None:
    reached: Counter[str] = Counter()
    with observing(lambda name: reached.update([name])):
        await together(ledger, *(inserting(f"r{n}") for n in range(2 * MAX_BATCH + 1)))
    held = ledger.backend.writers
    assert held + 3 <= reached["commit:after"] <= held + 2 + held, "two that are full, the rest"
    assert len(await stored(ledger)) == 2 * MAX_BATCH + 1


async def test_failing_write_undoes_only_itself(ledger: Ledger) -> None:
    results = await together(
        ledger, inserting("before"), inserting_then_failing("bad"), inserting("after")
    )
    assert isinstance(results[1], ValueError)
    assert await stored(ledger) == {"before", "after"}


async def test_write_that_fails_alone_leaves_nothing(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="bad"):
        await ledger.write(inserting_then_failing("bad"))
    assert await stored(ledger) == set()
    await ledger.insert("next")
    assert await stored(ledger) == {"next"}


async def test_nobody_is_told_before_the_commit(ledger: Ledger) -> None:
    """The commit is held up; meanwhile no waiter goes on and nobody else sees the rows."""
    held, go_on = threading.Event(), threading.Event()
    told: list[str] = []

    def hold(name: str) -> None:
        if name == "commit:before":
            held.set()
            assert go_on.wait(PATIENCE_SECONDS)

    async def insert(key: str) -> None:
        await ledger.write(runs.insert, new_run(key))
        told.append(key)

    with observing(hold):
        tasks = [asyncio.create_task(insert(f"r{n}")) for n in range(5)]
        await asyncio.to_thread(held.wait, PATIENCE_SECONDS)
        try:
            for _ in range(100):
                await asyncio.sleep(0)
            assert told == []
            assert ledger.backend.select("SELECT key FROM durably_runs") == []
        finally:
            go_on.set()
            await asyncio.gather(*tasks)
    assert sorted(told) == [f"r{n}" for n in range(5)]


async def test_failed_commit_is_told_to_every_waiter(ledger: Ledger) -> None:
    def refuse(name: str) -> None:
        if name == "commit:before":
            raise LedgerUnavailable("no room")

    async with HeldWriters(ledger):
        tasks = [asyncio.create_task(ledger.write(inserting(f"r{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        boundaries.observe(None)
    await asyncio.gather(*tasks)
    with observing(refuse):
        results = await asyncio.gather(
            *(ledger.write(inserting(f"s{n}")) for n in range(3)), return_exceptions=True
        )
    assert [type(result) for result in results] == [LedgerUnavailable] * 3
    assert await stored(ledger) == {"r0", "r1", "r2"}
    await ledger.insert("next")
    assert "next" in await stored(ledger)


async def test_cancelled_waiter_leaves_the_others_alone(ledger: Ledger) -> None:
    async with HeldWriters(ledger):
        tasks = [asyncio.create_task(ledger.write(inserting(f"r{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await stored(ledger) == {"r0", "r2"}, "a write that had not begun is not made"


async def test_closing_commits_what_is_queued(ledger: Ledger) -> None:
    async with HeldWriters(ledger):
        tasks = [asyncio.create_task(ledger.write(inserting(f"r{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(ledger.database.close())
        await asyncio.sleep(0)
    await closing
    assert [isinstance(r, tuple) for r in await asyncio.gather(*tasks)] == [True] * 3
    with pytest.raises(LedgerClosed, match="is not open"):
        await ledger.insert("late")
    await ledger.database.open()
    assert await stored(ledger) == {"r0", "r1", "r2"}


async def test_write_that_races_with_closing_is_made_or_refused(ledger: Ledger) -> None:
    """Never left waiting: each write is told either way."""
    database = ledger.database
    for turn in range(20):
        await database.open()
        start = threading.Barrier(3)
        writers = [
            asyncio.create_task(asyncio.to_thread(_write_until_closed, database, start, name))
            for name in (f"{turn}-a", f"{turn}-b")
        ]
        await asyncio.to_thread(start.wait)
        await database.close()
        acknowledged = {key for writer in writers for key in await writer}
        rows = ledger.backend.select(f"SELECT key FROM durably_runs WHERE key LIKE '{turn}-%'")
        assert acknowledged == {key for (key,) in rows}


def _write_until_closed(database: Database, start: threading.Barrier, name: str) -> list[str]:
    written: list[str] = []
    start.wait()
    while True:
        key = f"{name}-{len(written)}"
        try:
            database.write_blocking(runs.insert, new_run(key))
        except LedgerClosed:
            return written
        written.append(key)


async def test_commits_survive_power_loss(sqlite: SqliteBackend) -> None:
    """WAL alone may lose the last commits; FULL makes each one wait for the disk."""
    pragmas: dict[str, object] = {}

    def ask(name: str) -> None:
        if name == "commit:before":
            connection = sqlite.writing
            for pragma in ("synchronous", "journal_mode", "foreign_keys"):
                pragmas[pragma] = connection.execute(f"PRAGMA {pragma}").fetchone()[0]

    with observing(ask):
        await sqlite.database.write(runs.insert, new_run("r"))
    assert pragmas == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}


# --- several processes


async def test_processes_that_write_at_once_lose_nothing(ledger: Ledger) -> None:
    calls = [("insert", f"p{n}", "40") for n in range(3)]
    acknowledged = await asyncio.to_thread(all_at_once, ledger.backend.url, calls)
    found = {key for (key,) in ledger.backend.select("SELECT key FROM durably_runs")}
    assert found == {f"p{n}-{i}" for n in range(3) for i in range(40)}
    assert {key for keys in acknowledged for key in keys} == found


async def test_processes_never_claim_one_run_twice(ledger: Ledger) -> None:
    inserted = [(await ledger.insert()).key for _ in range(90)]
    calls = [("work", f"w{n}", "4") for n in range(3)]
    claimed = [
        tuple(claim)
        for claims in await asyncio.to_thread(all_at_once, ledger.backend.url, calls)
        for claim in claims
    ]
    assert sorted(claimed) == sorted((key, 1) for key in inserted)
    finished = ledger.backend.select("SELECT count(*) FROM durably_runs WHERE state = 'completed'")
    assert finished == [(90,)]


async def test_of_decisions_from_several_processes_exactly_one_wins(ledger: Ledger) -> None:
    run = await ledger.in_state(RunState.SUSPENDED)
    calls = [("resolve", f"p{n}", run.key, "0.0") for n in range(3)]
    accepted = await asyncio.to_thread(all_at_once, ledger.backend.url, calls)
    assert sorted(accepted) == [False, False, True]
    winner = f"p{accepted.index(True)}"
    assert ledger.backend.select("SELECT resolved_by FROM durably_effects") == [(winner,)]
