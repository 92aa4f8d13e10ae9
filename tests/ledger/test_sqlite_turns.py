"""Who of one process gets the lock of a SQLite file next."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from durably import LedgerError
from durably.ledger import reads, runs
from durably.ledger.sqlite import turns as turns_module
from durably.ledger.sqlite.database import SqliteDatabase
from durably.ledger.sqlite.turns import Turns
from support.ledgers import PATIENCE_SECONDS as PATIENCE
from support.ledgers import new_run, until


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    turns = Turns()
    asked = [turns.ask() for _ in range(3)]
    for turn in asked:
        assert [other.come.done() for other in asked[asked.index(turn) :]].count(True) == 1
        assert turn.come.done()
        turn.end()
        turn.end()  # Once is enough.


def test_whoever_gives_up_is_left_out() -> None:
    turns = Turns()
    first, gone, last = turns.ask(), turns.ask(), turns.ask()
    gone.end()
    with pytest.raises(LedgerError, match="over"):
        gone.wait(PATIENCE)
    first.end()
    last.wait(PATIENCE)


async def test_waiting_that_is_cancelled_is_left_out() -> None:
    turns = Turns()
    first, gone, last = turns.ask(), turns.ask(), turns.ask()
    waiting = asyncio.create_task(gone.wait_async(PATIENCE))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    first.end()
    await last.wait_async(PATIENCE)


async def test_waiting_that_takes_too_long_is_left_out() -> None:
    turns = Turns()
    first, late, later, last = (turns.ask() for _ in range(4))
    with pytest.raises(TimeoutError):
        late.wait(0.01)
    with pytest.raises(TimeoutError):
        await later.wait_async(0.01)
    first.end()
    last.wait(PATIENCE)


def test_however_many_wait_only_one_that_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(turns_module, "monotonic", lambda: now)
    turns = Turns()
    first, second, last = (turns.ask() for _ in range(3))
    now += 59.0
    first.end()
    now += 59.0
    assert turns.patience(last, 60.0) == 1.0, "the second has had its turn for 59 s"
    second.end()
    now += 61.0
    late = turns.ask()
    assert turns.patience(late, 60.0) == 60.0, "it has only just asked"
    now += 60.0
    assert turns.patience(late, 60.0) == 0.0
    with pytest.raises(TimeoutError):
        late.wait(60.0)
    last.wait(0.0)


async def test_tool_waits_longer_than_for_one_turn_if_turns_are_over() -> None:
    turns = Turns()
    held, *others = (turns.ask() for _ in range(4))
    waiting = asyncio.create_task(others[-1].wait_async(PATIENCE))
    in_thread = asyncio.create_task(asyncio.to_thread(others[-2].wait, PATIENCE))
    for turn in (held, *others[:-1]):
        await until(turn.come.done, "it has come")
        turn.end()
    await asyncio.wait_for(asyncio.gather(waiting, in_thread), PATIENCE)


async def test_whoever_goes_ahead_waits_for_one_and_no_other() -> None:
    turns = Turns()
    first, second = turns.ask(), turns.ask()
    seen: list[str] = []

    def go_ahead() -> None:
        with turns.ahead(PATIENCE) as left:
            assert 0 < left <= PATIENCE
            seen.append("ahead" if not second.come.done() else "behind")

    going = asyncio.create_task(asyncio.to_thread(go_ahead))
    await until(lambda: bool(turns._ahead), "it waits")  # pyright: ignore[reportPrivateUsage]
    first.end()
    await asyncio.wait_for(going, PATIENCE)
    assert seen == ["ahead"]
    second.wait(PATIENCE)


def test_one_that_never_ends_is_not_waited_for_for_ever() -> None:
    turns = Turns()
    turns.ask()
    with turns.ahead(0.01) as left:
        assert left == 0.0


async def test_the_ledgers_own_write_comes_before_a_tool_that_waits(tmp_path: Path) -> None:
    ledger = SqliteDatabase(tmp_path / "ledger.db")
    await ledger.open()
    first, second = ledger.transaction(), ledger.transaction()
    try:
        await first.begin_async()
        waiting = asyncio.create_task(second.begin_async())
        writing = asyncio.create_task(ledger.write(runs.insert, new_run("k-1")))
        turns = ledger._turns  # pyright: ignore[reportPrivateUsage]
        await until(lambda: bool(turns._ahead), "the write waits")  # pyright: ignore
        assert not waiting.done()
        first.rollback()
        connection = await asyncio.wait_for(waiting, PATIENCE)
        assert connection.execute("SELECT key FROM durably_runs").fetchall()[0]["key"] == "k-1"
        await asyncio.wait_for(writing, PATIENCE)
        assert (await ledger.read(reads.get_run, "k-1")).key == "k-1"
    finally:
        await first.close()
        await second.close()
        await ledger.close()


async def test_no_thread_is_needed_to_wait(tmp_path: Path) -> None:
    """Whoever has the file needs one to commit."""
    ledger = SqliteDatabase(tmp_path / "ledger.db")
    await ledger.open()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    transactions = [ledger.transaction() for _ in range(5)]
    first, *others = transactions
    try:
        await first.begin_async()
        waiting = [asyncio.create_task(one.begin_async()) for one in others]
        await asyncio.sleep(0)
        await asyncio.wait_for(first.commit(runs.insert(new_run("k-1"))), PATIENCE)
        for one, task in zip(others, waiting, strict=True):
            await asyncio.wait_for(task, PATIENCE)
            await asyncio.wait_for(one.commit(reads.get_run("k-1")), PATIENCE)
    finally:
        for one in transactions:
            await one.close()
        await ledger.close()


async def test_transaction_that_is_closed_while_it_waits_never_begins(tmp_path: Path) -> None:
    ledger = SqliteDatabase(tmp_path / "ledger.db")
    await ledger.open()
    first, in_thread, in_loop, last = (ledger.transaction() for _ in range(4))
    try:
        await first.begin_async()
        begun = asyncio.create_task(asyncio.to_thread(in_thread.begin))
        asked = asyncio.create_task(in_loop.begin_async())
        turns = ledger._turns  # pyright: ignore[reportPrivateUsage]
        await until(lambda: len(turns._waiting) == 2, "both wait")  # pyright: ignore
        for transaction, waiting in ((in_thread, begun), (in_loop, asked)):
            await transaction.close()
            with pytest.raises(LedgerError, match="over"):
                await asyncio.wait_for(waiting, PATIENCE)
            assert not transaction.begun
        first.rollback()
        await asyncio.wait_for(last.begin_async(), PATIENCE)
    finally:
        for transaction in (first, in_thread, in_loop, last):
            await transaction.close()
        await ledger.close()


async def test_transaction_that_is_begun_twice_at_once_keeps_nobody_out(tmp_path: Path) -> None:
    ledger = SqliteDatabase(tmp_path / "ledger.db")
    await ledger.open()
    first, twice, last = (ledger.transaction() for _ in range(3))
    try:
        await first.begin_async()
        waiting = asyncio.create_task(twice.begin_async())
        await asyncio.sleep(0)
        with pytest.raises(LedgerError, match="being begun already"):
            await twice.begin_async()
        first.rollback()
        await asyncio.wait_for(waiting, PATIENCE)
        await asyncio.wait_for(twice.commit(runs.insert(new_run("k-1"))), PATIENCE)
        await asyncio.wait_for(last.begin_async(), PATIENCE)
    finally:
        for transaction in (first, twice, last):
            await transaction.close()
        await ledger.close()


async def test_transaction_that_was_given_up_while_it_waited_may_begin_again(
    tmp_path: Path,
) -> None:
    ledger = SqliteDatabase(tmp_path / "ledger.db")
    await ledger.open()
    first, again = ledger.transaction(), ledger.transaction()
    try:
        await first.begin_async()
        waiting = asyncio.create_task(again.begin_async())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        first.rollback()
        await asyncio.wait_for(again.begin_async(), PATIENCE)
    finally:
        await first.close()
        await again.close()
        await ledger.close()
