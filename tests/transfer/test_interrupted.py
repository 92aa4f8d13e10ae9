"""A transfer that is killed, cut off, doubled or given up: never two ledgers in use, no loss."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from durably import boundaries
from durably.errors import LedgerError, LedgerMoved, LedgerUnavailable
from durably.ledger import runs
from durably.ledger.connect import database_for
from durably.ledger.sqlite import moved
from durably.ledger.transfer import move as steps
from durably.ledger.transfer import news
from durably.ledger.transfer.move import move, plan, take_back
from support.desk import wait_until
from support.ledgers import new_run
from support.moving import Contents, contents_of, transfer_process
from support.postgres import Postgres
from support.postgres_server import PostgresServer
from support.sample import longer

BATCHES = 3
BOUNDARIES = [
    ("transfer:marked", 1),
    ("transfer:begun", 1),
    *((f"transfer:batch:{side}", n + 1) for n in range(BATCHES) for side in ("before", "after")),
    ("transfer:verified", 1),
    ("transfer:opening", 1),
    ("transfer:finished", 1),
]

SAMPLE = [
    longer(name, nth) if name.startswith("transfer:batch:") and nth != 2 else (name, nth)
    for name, nth in BOUNDARIES
]
"""Of the batches one in the middle."""


async def is_open(url: str) -> bool:
    """Whether anybody can work on the ledger at this URL."""
    database = database_for(url)
    try:
        await database.open()
    except LedgerError:
        return False
    await database.close()
    return True


async def killed(source: Path, target: str, name: str, nth: int, command: str = "move") -> None:
    process = transfer_process(command, source, target, name, nth)
    said, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == -signal.SIGKILL, said


def test_these_are_the_boundaries_that_a_transfer_reaches(agents: Path, database_url: str) -> None:
    reached: Counter[str] = Counter()
    seen: list[tuple[str, int]] = []

    def observer(name: str) -> None:
        reached[name] += 1
        seen.append((name, reached[name]))

    boundaries.observe(observer)
    list(move(str(agents), database_url))
    assert seen == BOUNDARIES


@pytest.mark.parametrize(("name", "nth"), SAMPLE)
async def test_killed_at_any_boundary_it_goes_on_where_it_was(
    name: str, nth: int, agents: Path, before: Contents, database_url: str
) -> None:
    await killed(agents, database_url, name, nth)
    assert not await is_open(str(agents)), "from the first boundary on, the file is marked"
    # Open and still empty at the first; open and complete at the last.
    assert await is_open(database_url) == (name in ("transfer:marked", "transfer:finished"))

    again = list(move(str(agents), database_url))
    copied = sum(step.runs for step in again if isinstance(step, news.Copied))
    batches = nth if name == "transfer:batch:after" else nth - 1 if "batch" in name else BATCHES
    there = (
        0 if name in ("transfer:marked", "transfer:begun") else min(batches * 7, len(before.runs))
    )
    assert copied == len(before.runs) - there, "what was committed is not copied again"
    assert await contents_of(database_url) == before
    assert not await is_open(str(agents))


@pytest.mark.parametrize(("name", "nth"), SAMPLE)
async def test_killed_at_any_boundary_it_can_be_taken_back_unless_it_is_finished(
    name: str, nth: int, agents: Path, before: Contents, database_url: str
) -> None:
    await killed(agents, database_url, name, nth)
    if name == "transfer:finished":
        with pytest.raises(LedgerError, match="cannot be taken back"):
            take_back(str(agents), database_url)
        assert not await is_open(str(agents))
        assert await contents_of(database_url) == before
        return
    take_back(str(agents), database_url)
    assert await contents_of(f"sqlite:///{agents}") == before
    assert name == "transfer:marked" or (await contents_of(database_url)).runs == []
    with psycopg.connect(database_url) as connection:
        tables = ("durably_events", "durably_decisions", "durably_queues", "durably_transfer")
        for table in (*tables, "oban_jobs"):
            count = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
            assert count == (0,), table


async def test_killed_while_it_is_taken_back_that_can_be_done_again_or_the_move_go_on(
    agents: Path, before: Contents, database_url: str
) -> None:
    for finish in (take_back, lambda *ends: list(move(*ends))):
        await killed(agents, database_url, "transfer:batch:after", 2)
        await killed(agents, database_url, "transfer:emptied", 1, command="take_back")
        assert not await is_open(str(agents))
        finish(str(agents), database_url)
    assert await contents_of(database_url) == before


async def test_two_transfers_at_once_move_everything_once(
    agents: Path, before: Contents, database_url: str
) -> None:
    both = [transfer_process("move", agents, database_url) for _ in range(2)]
    said = await asyncio.gather(*(asyncio.to_thread(p.communicate) for p in both))
    # The second may find the tables, or the mark, being made at this very moment.
    assert 0 in [process.returncode for process in both], said
    list(move(str(agents), database_url))
    assert await contents_of(database_url) == before


async def test_two_transfers_that_take_turns_copy_nothing_twice(
    agents: Path, before: Contents, database_url: str
) -> None:
    both = [move(str(agents), database_url), move(str(agents), database_url)]
    said: list[news.News] = []
    while both:
        for moving in list(both):
            try:
                said.append(next(moving))
            except StopIteration:
                both.remove(moving)
    assert sum(step.runs for step in said if isinstance(step, news.Copied)) == len(before.runs)
    assert len([step for step in said if isinstance(step, news.Moved)]) == 2
    assert await contents_of(database_url) == before


async def test_the_slower_of_two_transfers_does_not_complain_that_runs_go_on(
    agents: Path, database_url: str
) -> None:
    slower = move(str(agents), database_url)
    while not isinstance(next(slower), news.Copied):
        pass
    list(move(str(agents), database_url))
    database = database_for(database_url)
    await database.open()
    await database.write(runs.cancel, "not begun", "ana")
    await database.close()
    assert isinstance(list(slower)[-1], news.Moved)


async def test_a_file_whose_mark_was_removed_by_hand_stays_the_one_in_use(
    agents: Path, database_url: str
) -> None:
    moving = move(str(agents), database_url)
    while not isinstance(next(moving), news.Copied):
        pass
    with closing(sqlite3.connect(agents)) as connection, connection:
        moved.remove_mark(connection)
    with pytest.raises(LedgerError, match="was taken back meanwhile"):
        list(moving)
    assert await is_open(str(agents))
    assert not await is_open(database_url)


async def test_taken_back_under_a_transfer_that_runs_it_stops(
    agents: Path, before: Contents, database_url: str
) -> None:
    moving = move(str(agents), database_url)
    while not isinstance(next(moving), news.Copied):
        pass
    assert take_back(str(agents), database_url) == 7
    with pytest.raises(LedgerError, match="was taken back meanwhile"):
        list(moving)
    assert await contents_of(f"sqlite:///{agents}") == before
    assert (await contents_of(database_url)).runs == []


async def test_taken_back_while_it_verifies_it_never_opens(
    agents: Path, before: Contents, database_url: str
) -> None:
    boundaries.observe(
        lambda name: take_back(str(agents), database_url) if name == "transfer:verified" else None
    )
    with pytest.raises(LedgerError, match="was taken back meanwhile"):
        list(move(str(agents), database_url))
    boundaries.observe(None)
    assert await contents_of(f"sqlite:///{agents}") == before
    list(move(str(agents), database_url))
    assert await contents_of(database_url) == before


def somebody_waits(url: str) -> bool:
    """Whether a session waits for a table."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return row is not None and row[0] > 0


async def test_taken_back_at_the_moment_when_it_begins_it_waits_for_that(
    agents: Path, before: Contents, database_url: str
) -> None:
    """Otherwise it would find nothing at the target, and free the file for both."""
    with ThreadPoolExecutor() as threads:
        back: list[Future[int]] = []

        def strike(name: str) -> None:
            if name == "transfer:marked":
                back.append(threads.submit(take_back, str(agents), database_url))
                wait_until(lambda: back[0].done() or somebody_waits(database_url))
                assert not back[0].done()

        boundaries.observe(strike)
        with suppress(LedgerError):
            list(move(str(agents), database_url))
        back[0].result()
    assert await contents_of(f"sqlite:///{agents}") == before
    assert (await contents_of(database_url)).runs == []


async def test_a_run_that_is_being_enqueued_at_the_target_is_seen(
    agents: Path, before: Contents, migrated_url: str
) -> None:
    database = database_for(migrated_url)
    await database.open()
    with ThreadPoolExecutor() as threads, psycopg.connect(migrated_url) as connection:
        await database.run_on(connection, runs.insert(new_run("just now")))
        moving = threads.submit(lambda: list(move(str(agents), migrated_url)))
        await asyncio.to_thread(wait_until, lambda: moving.done() or somebody_waits(migrated_url))
        connection.commit()
        with pytest.raises(LedgerError, match="holds runs already"):
            moving.result()
    await database.close()
    assert await contents_of(f"sqlite:///{agents}") == before


# --- the server


async def test_server_that_restarts_is_waited_for(
    agents: Path, before: Contents, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed just before a commit and just after one: what was committed is not written twice."""
    monkeypatch.setattr(steps, "RETRY_SECONDS", 0.05)
    struck: Counter[str] = Counter()

    def strike(name: str) -> None:
        struck[name] += 1
        if (name, struck[name]) in [("transfer:batch:before", 2), ("transfer:batch:after", 2)]:
            own_postgres.kill()
            own_postgres.start()

    boundaries.observe(strike)
    said = list(move(str(agents), own_postgres.url()))
    waited = [step for step in said if isinstance(step, news.Waiting)]
    assert len(waited) >= 2
    assert await contents_of(own_postgres.url()) == before


async def test_server_that_stays_away_ends_the_transfer_which_goes_on_later(
    agents: Path, before: Contents, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(steps, "PATIENCE_SECONDS", 0.2)
    moving = move(str(agents), own_postgres.url())
    while not isinstance(next(moving), news.Copied):
        pass
    own_postgres.kill()
    with pytest.raises(LedgerUnavailable):
        list(moving)
    with pytest.raises(LedgerUnavailable):
        take_back(str(agents), own_postgres.url())
    assert not await is_open(str(agents))
    own_postgres.start()
    list(move(str(agents), own_postgres.url()))
    assert await contents_of(own_postgres.url()) == before


async def test_server_that_dies_while_it_is_compared_is_compared_again(
    agents: Path, before: Contents, own_postgres: PostgresServer
) -> None:
    moving = move(str(agents), own_postgres.url())
    while not isinstance(next(moving), news.Checked):
        pass
    own_postgres.kill()
    with pytest.raises(LedgerUnavailable):
        list(moving)
    own_postgres.start()
    again = list(move(str(agents), own_postgres.url()))
    assert not [step for step in again if isinstance(step, news.Copied)]
    assert await contents_of(own_postgres.url()) == before


# --- other targets


async def test_a_transfer_goes_on_with_its_own_target_only(
    agents: Path, before: Contents, database_url: str, postgres: Postgres
) -> None:
    await killed(agents, database_url, "transfer:batch:after", 1)
    with postgres.database() as other:
        for attempt in (
            lambda: list(move(str(agents), other)),
            lambda: take_back(str(agents), other),
        ):
            with pytest.raises(LedgerError, match="is being moved to") as refused:
                attempt()
            assert database_url in str(refused.value)
        assert plan(str(agents), other).obstacles == [str(refused.value)]
    # The same database under another name is the same ledger.
    list(move(str(agents), database_url.replace("127.0.0.1", "localhost")))
    assert await contents_of(database_url) == before


async def test_a_target_that_was_made_anew_is_no_reason_to_be_stuck(
    agents: Path, before: Contents, database_url: str
) -> None:
    await killed(agents, database_url, "transfer:batch:after", 1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    with pytest.raises(LedgerMoved):
        await contents_of(str(agents))
    with pytest.raises(LedgerError, match="is being moved to"):
        list(move(str(agents), database_url))
    assert take_back(str(agents), database_url) == 0
    list(move(str(agents), database_url))
    assert await contents_of(database_url) == before


async def test_a_target_that_may_be_in_use_is_not_mistaken_for_one_made_anew(
    agents: Path, database_url: str
) -> None:
    await killed(agents, database_url, "transfer:finished", 1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER SCHEMA public RENAME TO elsewhere")
        connection.execute("CREATE SCHEMA public")
    with pytest.raises(LedgerError, match="is being moved to"):
        take_back(str(agents), database_url)
    assert not await is_open(str(agents))


def test_there_is_nothing_to_take_back_of_a_ledger_that_is_not_moved(
    agents: Path, database_url: str
) -> None:
    with pytest.raises(LedgerError, match="is not being moved"):
        take_back(str(agents), database_url)
