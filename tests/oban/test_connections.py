"""What a worker takes of the server's connections, by the numbers of docs/postgres.md."""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import parse_qsl

import psycopg
import pytest

from durably import Durably
from durably.ledger.postgres.connection import connect
from durably.ledger.postgres.url import PostgresUrl
from support.clerk import Clerk, Jobs, make_app, until

SESSIONS = "SELECT application_name AS name, query FROM pg_stat_activity WHERE {}"
HERE = "datname = current_database() AND pid <> pg_backend_pid()"


def sessions(jobs: Jobs) -> Counter[str]:
    return Counter(row["name"] for row in jobs.sql(SESSIONS.format(HERE)))


async def test_worker_takes_no_more_connections_than_the_docs_say(
    jobs: Jobs, wiped_url: str, clerk: Clerk
) -> None:
    most: Counter[str] = Counter()
    async with make_app(wiped_url, clerk) as app, app.worker(queues={"agents": 100}):
        runs = [await app.enqueue("clerk", "file", key=f"r{n}") for n in range(40)]
        waiting = asyncio.gather(*(run.result(timeout=120) for run in runs))
        while not waiting.done():
            most |= sessions(jobs)
            await asyncio.sleep(0.02)
        await waiting
    # One that is being made has no name yet.
    assert set(most) - {""} == {"durably", "durably-oban"}
    # The event loop's 2, 4 writers, 2 readers, the heartbeat, one that listens, one that tells;
    # Oban's 4 and 1.
    assert most["durably"] <= 11
    assert most["durably-oban"] <= 5
    await until(lambda: not sessions(jobs), "none is left")


async def test_pool_size_is_how_many_threads_write(
    jobs: Jobs, wiped_url: str, clerk: Clerk
) -> None:
    most: Counter[str] = Counter()
    url = f"{wiped_url}?pool_size=1&notify=off"
    async with make_app(url, clerk) as app, app.worker(queues={"agents": 100}):
        runs = [await app.enqueue("clerk", "file", key=f"r{n}") for n in range(15)]
        for run in runs:
            await run.result(timeout=120)
            most |= sessions(jobs)
    assert most["durably"] <= 6  # one writer, 2 readers, the heartbeat; the event loop's 2


async def test_obans_notifier_is_known_by_name(app: Durably, jobs: Jobs) -> None:
    async with app.worker():
        oban = SESSIONS.format(f"{HERE} AND query LIKE 'LISTEN \"public.oban_%%'")
        await until(lambda: bool(jobs.sql(oban)), "Oban listens")
        assert {row["name"] for row in jobs.sql(oban)} == {"durably-oban"}


def test_what_the_url_says_wins() -> None:
    url = "postgresql://u:p%40w@a,b/db?application_name=shop&target_session_attrs=any&schema=x"
    said = PostgresUrl.parse(url).conninfo_as("durably-oban")
    place, _, query = said.partition("?")
    assert place == "postgresql://u:p%40w@a,b/db"
    told = dict(parse_qsl(query))
    assert (told["application_name"], told["target_session_attrs"]) == ("shop", "any")
    assert "schema" not in told


@pytest.mark.parametrize("said", ["", "&tcp_user_timeout=1000"])
def test_host_that_is_gone_without_a_word_is_noticed_soon(wiped_url: str, said: str) -> None:
    url = PostgresUrl.parse(f"{wiped_url}?pool_size=2{said}")
    with connect(url) as own, psycopg.connect(url.conninfo_as("durably-oban")) as obans:
        for connection in (own, obans):
            told = connection.info.get_parameters()
            assert told["tcp_user_timeout"] == ("1000" if said else "15000")
            assert (told["keepalives_idle"], told["connect_timeout"]) == ("10", "5")


def test_of_several_hosts_the_one_that_takes_writes_is_meant() -> None:
    said = PostgresUrl.parse("postgresql://a,b/db").conninfo_as("durably-oban")
    assert "target_session_attrs=read-write" in said
