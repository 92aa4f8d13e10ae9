"""What is one statement on PostgreSQL is done from the event loop; threads do all else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest

from durably import boundaries
from durably.errors import LeaseLost, LedgerError, LedgerUnavailable
from durably.ledger import attempts, reads, runs, steps, workers
from durably.ledger.operations import Operation, Statement, brief
from durably.ledger.postgres import loop_lane
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.written import Step
from durably.records import Claim, NewRun, RunRecord
from support.ledgers import (
    PATIENCE_SECONDS,
    Ledger,
    PostgresBackend,
    done,
    message,
    new_run,
    stale,
    tool_call,
    until,
)
from support.postgres_server import PostgresServer
from support.wire import Cut, Network


def is_here(database: PostgresDatabase) -> bool:
    """Whether the running event loop has its connections, one to write and one to read."""
    lanes = (database._writer, database._reader)  # pyright: ignore[reportPrivateUsage]
    loop = asyncio.get_running_loop()
    return all(lane and lane._pipeline.loop is loop and lane._pipeline.now for lane in lanes)  # pyright: ignore[reportPrivateUsage]


async def at_the_loop(database: PostgresDatabase) -> PostgresDatabase:
    """The database, once whatever can be done from this loop is."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_here(database):
            with suppress(LeaseLost):
                await database.write(steps.find_outcome, Claim(-1, 1, "w"), tool_call().position)
            await database.read(reads.list_stopped, [1])
            await asyncio.sleep(0.01)
    return database


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[PostgresDatabase]:
    database = PostgresDatabase(url)
    await database.open()
    try:
        yield await at_the_loop(database)
    finally:
        await database.close()


@pytest.fixture
async def database(ledger: Ledger, pg: PostgresBackend) -> AsyncGenerator[PostgresDatabase]:
    """The ledger's database as a process has it that goes by no clock of a test's."""
    async with opened(pg.url) as database:
        yield database


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that committed, by name, in order."""
    threads: list[str] = []

    def observe(name: str) -> None:
        if name == "commit:before":
            threads.append(threading.current_thread().name)

    monkeypatch.setattr(boundaries, "_observers", (observe,))
    return threads


def here() -> str:
    return threading.current_thread().name


def step(run: RunRecord, seq: int = 0, body: str = "{}") -> tuple[Any, ...]:
    return steps.record_step, run.claim, Step(messages=(message(seq, body),))


async def write_step(database: PostgresDatabase, run: RunRecord, *what: Any) -> None:
    await database.write(*step(run, *what), alone=True)


@brief
def enqueue(new: NewRun) -> Operation[tuple[RunRecord, bool]]:
    return (yield from runs.insert(new, alone=True))


def sessions(url: str) -> set[int]:
    """What is connected to this database, but for who asks."""
    asked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    with psycopg.connect(url) as connection:
        found = connection.execute(f"{asked} AND pid <> pg_backend_pid()".encode())
        return {pid for (pid,) in found.fetchall()}


async def lengths(ledger: Ledger, *of: RunRecord) -> list[int]:
    return [len(await ledger.read(reads.list_messages, run.id)) for run in of]


# --- which


async def test_step_is_written_without_a_thread(
    ledger: Ledger, database: PostgresDatabase, committed: list[str]
) -> None:
    run = await ledger.executing()
    committed.clear()
    await write_step(database, run)
    assert await database.write(steps.record_intent, run.claim, tool_call()) is None
    await database.write(steps.record_outcome, run.claim, done(tool_call()))
    ended = await database.write(attempts.complete, run.claim, '"x"', Step(), alone=True)
    assert ended == await database.read(reads.get_run, run.key, alone=True)
    assert committed == [here()] * 4


async def test_what_needs_a_transaction_is_the_threads(
    ledger: Ledger, database: PostgresDatabase, committed: list[str]
) -> None:
    run = await ledger.executing()
    committed.clear()
    await database.write(attempts.hand_back, run.claim, Step())
    await database.write(runs.insert_many, new_run("k"), {"a": '"hi"', "b": '"ho"'})
    assert committed == ["durably-writer"] * 2


async def test_writes_that_wait_share_a_commit(
    ledger: Ledger, pg: PostgresBackend, database: PostgresDatabase, committed: list[str]
) -> None:
    going = [await ledger.executing() for _ in range(20)]
    committed.clear()
    await asyncio.gather(*(write_step(database, run) for run in going))
    assert committed == [here()]
    assert pg.select("SELECT count(*), count(DISTINCT xmin::text) FROM durably_messages") == [
        (20, 1)
    ]


async def test_read_of_one_row_waits_for_no_write(
    ledger: Ledger, pg: PostgresBackend, database: PostgresDatabase
) -> None:
    run = await ledger.executing()
    with pg.connect() as other:
        other.execute("SELECT 1 FROM durably_runs FOR UPDATE")
        writing = asyncio.create_task(write_step(database, run))
        await asyncio.sleep(0)
        assert (await database.read(reads.get_run, run.key, alone=True)).attempt == run.attempt
        assert not writing.done()
    await writing


# --- refused, or in somebody's way


async def test_stale_attempt_is_refused_and_disturbs_nobody(
    ledger: Ledger, database: PostgresDatabase
) -> None:
    run, other = await ledger.executing(), await ledger.executing()
    message_of_stale = Step(messages=(message(0),))
    told = await asyncio.gather(
        database.write(steps.record_step, stale(run), message_of_stale, alone=True),
        write_step(database, other),
        database.write(steps.record_intent, stale(run), tool_call()),
        return_exceptions=True,
    )
    assert [type(each) for each in told] == [LeaseLost, type(None), LeaseLost]
    assert await lengths(ledger, run, other) == [0, 1]


async def test_step_of_which_a_part_is_there_fails_alone(
    ledger: Ledger, database: PostgresDatabase
) -> None:
    """The statement fails, and with it all that were sent at once: they are made again."""
    run, other = await ledger.executing(), await ledger.executing()
    await write_step(database, run, 0)
    both = Step(messages=(message(0), message(1)))
    told = await asyncio.gather(
        database.write(steps.record_step, run.claim, both, alone=True),
        write_step(database, other),
        return_exceptions=True,
    )
    assert [type(each) for each in told] == [LedgerError, type(None)]
    assert await lengths(ledger, run, other) == [1, 1]
    await write_step(database, other, 1)
    assert await lengths(ledger, other) == [2]


@brief
def unfit(claim: Claim) -> Operation[None]:
    yield Statement("list_stopped", {"ids": object()}, alone=True)


@brief
def unreadable(claim: Claim) -> Operation[None]:
    """A result that the operation makes nothing of."""
    rows = yield Statement("time_now", {}, alone=True)
    raise ValueError(len(rows))


async def test_error_of_ones_own_is_told_to_nobody_else(
    ledger: Ledger, database: PostgresDatabase
) -> None:
    run = await ledger.executing()
    told = await asyncio.gather(
        database.write(unfit, run.claim),
        database.write(unreadable, run.claim),
        write_step(database, run),
        return_exceptions=True,
    )
    assert [type(each) for each in told] == [psycopg.ProgrammingError, ValueError, type(None)]
    assert await lengths(ledger, run) == [1]


async def test_lock_holds_up_only_who_needs_it(
    ledger: Ledger, pg: PostgresBackend, database: PostgresDatabase
) -> None:
    held, other = await ledger.executing(), await ledger.executing()
    with pg.connect() as somebody:
        somebody.execute("SELECT 1 FROM durably_runs WHERE id = %s FOR UPDATE", [held.id])
        waiting = asyncio.create_task(write_step(database, held))
        await asyncio.gather(write_step(database, other, 0), asyncio.sleep(0))
        await write_step(database, other, 1)
        assert not waiting.done()
    await waiting
    assert await lengths(ledger, held, other) == [1, 2]


async def test_event_loop_that_stands_still_holds_nobodys_row(
    ledger: Ledger, pg: PostgresBackend, database: PostgresDatabase
) -> None:
    """The server commits what it was sent without another word from this process."""
    going = [await ledger.executing() for _ in range(10)]
    writing = [asyncio.create_task(write_step(database, run)) for run in going]
    for _ in range(2):
        await asyncio.sleep(0)
    with psycopg.connect(pg.url, autocommit=True) as other:
        # No await: the loop has no turn.
        for _ in range(100_000):
            (found,) = other.execute("SELECT count(*) FROM durably_messages").fetchone() or (0,)
            if found == len(going):
                break
        other.execute("SET lock_timeout = '1ms'")
        other.execute("SELECT 1 FROM durably_runs FOR UPDATE NOWAIT")
    assert found == len(going)
    await asyncio.gather(*writing)


# --- much of it


async def test_large_step_is_sent_as_the_socket_takes_it(
    ledger: Ledger, database: PostgresDatabase, committed: list[str]
) -> None:
    """And alone: no server waits for the rest of it while it holds others' rows."""
    before, run, after = [await ledger.executing() for _ in range(3)]
    committed.clear()
    body = f'"{"x" * 20_000_000}"'
    await asyncio.gather(
        write_step(database, before),
        write_step(database, run, 0, body),
        write_step(database, after),
    )
    assert committed == [here()] * 3
    (stored,) = await ledger.read(reads.list_messages, run.id)
    assert stored.body == body
    assert await lengths(ledger, before, after) == [1, 1]


async def test_text_and_times_are_what_threads_make_of_them(
    ledger: Ledger, database: PostgresDatabase
) -> None:
    run = await ledger.executing()
    odd = done(tool_call(), result='{"return_value": "%s $1 %% \\u00e9 é"}')
    assert await database.write(steps.record_outcome, run.claim, odd) is None
    effect = await database.write(steps.record_outcome, run.claim, odd)
    assert effect == await ledger.read(lambda: steps.effect_at(run.claim, odd.call.position))
    assert effect is not None
    assert effect.result == odd.result
    new = new_run("k\x00\ud800")
    made, _ = await database.write(enqueue, new)
    assert made == await ledger.read(reads.get_run, made.key)
    assert made.key == "k\ufffd?"


# --- called off


async def test_write_that_was_called_off_before_it_was_sent_is_not_made(
    ledger: Ledger, database: PostgresDatabase
) -> None:
    run = await ledger.executing()
    writing = asyncio.create_task(write_step(database, run))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await database.write(steps.record_intent, run.claim, tool_call())
    assert await lengths(ledger, run) == [0]


async def test_write_that_was_called_off_once_sent_is_made(
    ledger: Ledger, database: PostgresDatabase
) -> None:
    run = await ledger.executing()
    writing = asyncio.create_task(write_step(database, run))
    for _ in range(2):
        await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert writing.cancelled()
    await write_step(database, run, 1)
    assert await lengths(ledger, run) == [2]


# --- lost


async def test_write_of_which_nobody_heard_may_be_there(
    ledger: Ledger, pg: PostgresBackend
) -> None:
    run, other = await ledger.executing(), await ledger.executing()
    with Network(pg.url) as network:
        async with opened(network.url) as database:
            strike = network.strike(Cut.AFTER, "INSERT INTO .*durably_messages")
            told = await asyncio.gather(
                write_step(database, run),
                write_step(database, other),
                database.write(enqueue, new_run("new")),
                return_exceptions=True,
            )
            assert strike.done.is_set()
            assert [type(each) for each in told[:2]] == [LedgerUnavailable] * 2
            assert told[2][1] is False, "it is found"  # pyright: ignore[reportIndexIssue,reportUnknownMemberType]
            await write_step(database, run)
    assert await lengths(ledger, run, other) == [1, 1]


async def test_server_that_restarts_is_used_again(own_postgres: PostgresServer) -> None:
    url = own_postgres.url()
    database = PostgresDatabase(url)
    await database.migrate()
    try:
        await at_the_loop(database)
        await asyncio.to_thread(own_postgres.stop, "immediate")
        with pytest.raises(LedgerUnavailable):
            await database.write(enqueue, new_run("a"))
        await until(lambda: not is_here(database), "it is noticed without asking")
        await asyncio.to_thread(own_postgres.start)
        await at_the_loop(database)
        run, _ = await database.write(enqueue, new_run("a"))
        assert run.key == "a"
    finally:
        await database.close()


# --- whose loop


async def test_other_event_loops_write_by_threads(
    ledger: Ledger, database: PostgresDatabase, committed: list[str]
) -> None:
    run, other = await ledger.executing(), await ledger.executing()
    committed.clear()
    await asyncio.to_thread(lambda: asyncio.run(write_step(database, other)))
    await write_step(database, run)
    assert committed == ["durably-writer", here()]
    assert await lengths(ledger, run, other) == [1, 1]


def test_loop_that_was_closed_leaves_its_place_to_the_next(wiped_url: str) -> None:
    """And its connections are closed."""
    database = PostgresDatabase(wiped_url)

    async def begin() -> None:
        await database.open()
        await at_the_loop(database)

    async def go_on() -> None:
        await at_the_loop(database)
        await database.write(enqueue, new_run("a"))
        await database.close()

    asyncio.run(begin())
    before = sessions(wiped_url)
    asyncio.run(go_on())
    asyncio.run(until(lambda: not before & sessions(wiped_url), "the server has noticed"))


def test_first_of_many_loops_is_the_one(wiped_url: str) -> None:
    database = PostgresDatabase(wiped_url)
    at_once = threading.Barrier(8)

    async def write(key: str) -> bool:
        at_once.wait(PATIENCE_SECONDS)
        for number in range(20):
            await database.write(enqueue, new_run(f"{key}-{number}"))
        return is_here(database)

    asyncio.run(database.open())
    with ThreadPoolExecutor(8) as threads:
        writing = [threads.submit(asyncio.run, write(f"{n}")) for n in range(8)]
        assert sum(each.result() for each in writing) <= 1
    asyncio.run(database.close())
    with psycopg.connect(wiped_url) as connection:
        assert connection.execute("SELECT count(*) FROM durably_runs").fetchone() == (160,)


@pytest.mark.parametrize("at", ["commit:before", "commit:after"])
def test_interrupt_leaves_nobody_waiting(
    wiped_url: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """^C comes in the middle of anything."""
    database = PostgresDatabase(wiped_url)

    def interrupt(name: str) -> None:
        if name == at:
            monkeypatch.setattr(boundaries, "_observers", ())
            raise KeyboardInterrupt

    async def begin() -> None:
        await database.open()
        await at_the_loop(database)
        run, _ = await database.write(enqueue, new_run("a"))
        await database.write(workers.register, "w", "w", 1, {"agents": 1}, 3600.0)
        (run,) = await database.write(attempts.claim, "w", "agents", 1)
        writing.append(asyncio.create_task(write_step(database, run)))
        monkeypatch.setattr(boundaries, "_observers", (interrupt,))

    async def go_on() -> None:
        with pytest.raises(LedgerUnavailable):
            await writing[0]
        await database.write(enqueue, new_run("b"))
        await database.close()

    writing: list[asyncio.Task[None]] = []
    with asyncio.Runner() as runner:
        runner.run(begin())
        with pytest.raises(KeyboardInterrupt):
            runner.run(asyncio.sleep(PATIENCE_SECONDS))
        runner.run(go_on())


def test_loop_that_stands_still_does_not_keep_another_from_closing(
    wiped_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_lane, "LEAVING_SECONDS", 0.1)
    database = PostgresDatabase(wiped_url)
    with asyncio.Runner() as first:
        first.run(database.open())
        first.run(at_the_loop(database))
        asyncio.run(database.close())


async def test_loop_that_sees_no_sockets_leaves_all_to_threads(
    ledger: Ledger, pg: PostgresBackend, committed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        refused.set()
        raise NotImplementedError

    refused = asyncio.Event()
    run = await ledger.executing()
    committed.clear()
    database = PostgresDatabase(pg.url)
    await database.open()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
        await write_step(database, run, 0)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await refused.wait()
    await write_step(database, run, 1)
    await database.close()
    assert committed == ["durably-writer"] * 2


# --- closing


async def test_closing_waits_for_what_was_asked(ledger: Ledger, pg: PostgresBackend) -> None:
    run = await ledger.executing()
    async with opened(pg.url) as database:
        writing = asyncio.create_task(write_step(database, run))
        await asyncio.sleep(0)
    assert writing.done()
    await writing
    assert await lengths(ledger, run) == [1]


async def test_nothing_is_left_of_its_connections(ledger: Ledger, pg: PostgresBackend) -> None:
    before = sessions(pg.url)
    async with opened(pg.url) as database:
        its_own = sessions(pg.url) - before
        assert its_own
        await asyncio.gather(database.close(), database.close())
    await until(lambda: not its_own & sessions(pg.url), "the server has noticed")


async def test_refused_commit_is_told_to_every_waiter(
    ledger: Ledger, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = [await ledger.executing() for _ in range(3)]

    def refuse(at: str) -> Callable[[str], None]:
        def observe(name: str) -> None:
            if name == at:
                raise LedgerUnavailable("no room")

        return observe

    for at, there in (("commit:before", [0, 0, 0]), ("commit:after", [1, 1, 1])):
        with monkeypatch.context() as patch:
            patch.setattr(boundaries, "_observers", (refuse(at),))
            told = await asyncio.gather(
                *(write_step(database, run) for run in going), return_exceptions=True
            )
        assert [type(each) for each in told] == [LedgerUnavailable] * 3
        assert await lengths(ledger, *going) == there
