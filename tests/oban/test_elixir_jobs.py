"""Jobs that Elixir's Oban inserts, in tables that Python's or Elixir's migrations made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from durably import Durably, RunState
from durably.ledger import attempts, jobs
from durably.ledger.jobs import Wakeup
from support import elixir
from support.clerk import Clerk, make_app, until

ASKED: dict[str, Any] = {"agent": "clerk", "key": "r1", "prompt": "file"}
WORKER = "durably.RunAgent"


@dataclass
class Place:
    """A database that an application in Elixir shares.

    Attributes:
        url: the database's.
        prefix: Oban's word for the schema.
    """

    url: str
    prefix: str

    @property
    def ledger_url(self) -> str:
        return f"{self.url}?schema={self.prefix}"

    def sql(self, statement: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            connection.execute(f'SET search_path = "{self.prefix}"'.encode())
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def jobs(self) -> list[dict[str, Any]]:
        return self.sql("SELECT *, state::text AS state FROM oban_jobs ORDER BY id")

    def insert(self, args: dict[str, Any] = ASKED, **options: Any) -> int:
        return elixir.insert(
            self.url,
            args,
            **({"worker": WORKER, "queue": "agents", "prefix": self.prefix} | options),
        )


@asynccontextmanager
async def migrated(place: Place, clerk: Clerk) -> AsyncIterator[Durably]:
    app = make_app(place.ledger_url, clerk)
    await app.migrate()
    async with app:
        yield app


@pytest.fixture(params=["public", "jobs"])
def prefix(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["python", 13, 14])
def place(request: pytest.FixtureRequest, database_url: str, prefix: str) -> Place:
    if request.param != "python":
        elixir.make_tables(database_url, prefix, request.param)
    return Place(database_url, prefix)


@pytest.fixture
async def app(place: Place, clerk: Clerk) -> AsyncIterator[Durably]:
    async with migrated(place, clerk) as app:
        yield app


async def test_job_of_elixir_is_a_run(app: Durably, place: Place, clerk: Clerk) -> None:
    async with app.worker():
        place.insert()
        await until(lambda: place.jobs()[0]["state"] == "completed", "the job is acknowledged")
    run = await app.get("r1")
    assert (run.state, run.output(), clerk.worked) == (RunState.COMPLETED, "answered", ["file"])
    assert len(place.jobs()) == 1


async def test_options_of_elixirs_job_are_the_runs(app: Durably, place: Place) -> None:
    due = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=0.2)
    async with app.worker():
        place.insert(tags=["VIP "], priority=4, meta={"by": "shop"}, scheduled_at=due)
        await until(lambda: place.jobs()[0]["state"] == "completed", "the job is acknowledged")
    run = (await app.get("r1")).record
    assert (run.queue, run.priority, run.tags) == ("agents", 4, ["vip"])


async def test_elixir_reads_why_a_job_was_cancelled(app: Durably, place: Place) -> None:
    async with app.worker():
        place.insert({"agent": "clerk", "prompt": "file"})
        await until(lambda: place.jobs()[0]["state"] == "cancelled", "the job is cancelled")
    ((error,),) = [job["errors"] for job in place.jobs()]
    assert set(error) == {"attempt", "at", "error"}
    assert "key: field required" in error["error"]


async def test_elixir_reads_why_an_attempt_failed(app: Durably, place: Place, clerk: Clerk) -> None:
    clerk.failures = 1
    async with app.worker():
        place.insert()
        states = lambda: [job["state"] for job in place.jobs()]  # noqa: E731
        await until(lambda: states() == ["discarded", "completed"], "both jobs are acknowledged")
    (error,) = place.jobs()[0]["errors"]
    assert "the printer burns" in error["error"]


async def test_elixir_reads_that_a_worker_died(app: Durably, place: Place) -> None:
    run = await app.enqueue("clerk", "file", key="r2")
    job = place.jobs()[-1]["id"]
    place.sql("UPDATE oban_jobs SET state = 'executing', attempt = 1, attempted_at = now()")
    await app.ledger.write(jobs.claim, "dead", Wakeup(job, "r2", datetime.now(UTC)))
    await app.ledger.write(attempts.rescue)
    assert (await run.refresh()).state is RunState.AVAILABLE
    found = next(j for j in place.jobs() if j["id"] == job)
    (error,) = found["errors"]
    assert found["state"] == "discarded"
    assert isinstance(error, dict) and "lease ended" in error["error"]


@pytest.mark.parametrize("compress", [False, True], ids=["since 2.21", "before 2.21"])
async def test_notice_of_elixir_wakes_the_worker(
    database_url: str, clerk: Clerk, compress: bool
) -> None:
    place = Place(database_url, "public")
    elixir.make_tables(place.url)
    # The stager, which would find the job by itself, looks too rarely to be of help.
    stager = {"interval": 3600.0}
    async with migrated(place, clerk) as app, app.worker(oban={"stager": stager}) as worker:
        await until(lambda: _listens(worker), "the worker listens")
        place.insert(compress=compress)
        await until(lambda: clerk.worked == ["file"], "it heard of the job")


def _listens(worker: Any) -> bool:
    oban = worker._dispatcher._oban
    return oban is not None and bool(
        "insert" in oban._notifier._subscriptions and "insert" not in oban._notifier._pending_listen
    )


async def test_job_without_a_notice_is_found(app: Durably, place: Place, clerk: Clerk) -> None:
    async with app.worker():
        await app.enqueue("clerk", "first", key="first")
        await until(lambda: clerk.worked == ["first"], "the worker works")
        place.sql(
            "INSERT INTO oban_jobs (worker, queue, args) VALUES ('durably.RunAgent', 'agents', "
            '\'{"agent": "clerk", "key": "r1", "prompt": "file"}\')'
        )
        await until(lambda: clerk.worked == ["first", "file"], "it is found")


async def test_jobs_of_elixirs_own_workers_are_left_alone(app: Durably, place: Place) -> None:
    place.insert({"id": 7}, worker="Shop.Mailer", queue="mailers")
    async with app.worker():
        place.insert()
        await until(lambda: place.jobs()[1]["state"] == "completed", "the run's job is over")
    assert place.jobs()[0]["state"] == "available"


@pytest.mark.parametrize("version", [13, 14])
async def test_migrating_leaves_elixirs_tables_to_elixir(
    database_url: str, prefix: str, clerk: Clerk, version: int
) -> None:
    place = Place(database_url, prefix)
    elixir.make_tables(database_url, prefix, version)
    place.insert({"id": 7}, worker="Shop.Mailer", queue="mailers")
    before = _columns(place)
    async with migrated(place, clerk):
        assert _columns(place) == before
    found = place.sql("SELECT obj_description('oban_jobs'::regclass) AS version")
    assert found == [{"version": str(version)}]
    states = place.sql("SELECT unnest(enum_range(NULL::oban_job_state))::text AS state")
    assert {row["state"] for row in states} == set(elixir.STATES.split())
    assert [job["worker"] for job in place.jobs()] == ["Shop.Mailer"]


def _columns(place: Place) -> list[dict[str, Any]]:
    return place.sql(
        "SELECT attname, atttypid::regtype::text, attnotnull, "
        "pg_get_expr(adbin, adrelid) AS value FROM pg_attribute "
        "LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum "
        "WHERE attrelid = 'oban_jobs'::regclass AND attnum > 0 ORDER BY attnum"
    )
