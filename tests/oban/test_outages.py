"""Oban and a database that comes and goes, at moments that tests of whole servers seldom hit."""

from __future__ import annotations

import time

import psycopg
import pytest

from durably import Durably, RunState
from support.clerk import Clerk, Jobs, make_app, until
from support.roles import role
from support.wire import Cut, Network

SOON_SECONDS = 60.0
"""Far more than it takes, and far less than until Oban would mend it: five minutes."""

FETCH = "attempted_by = "
ACKNOWLEDGE = "completed_at = CASE"

GRANTS = """
    GRANT USAGE ON SCHEMA public TO few;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO few;
    GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO few;
    ALTER ROLE few CONNECTION LIMIT 3
"""


async def test_job_that_was_fetched_and_never_heard_of_comes_again_soon(
    jobs: Jobs, wiped_url: str, clerk: Clerk
) -> None:
    with Network(wiped_url) as network:
        async with make_app(network.url, clerk) as app:
            run = await app.enqueue("clerk", "file", key="r1")
            strike = network.strike(Cut.AFTER, FETCH)
            async with app.worker():
                await until(strike.done.is_set, "the network strikes")
                began = time.monotonic()
                assert await run.result(timeout=120) == "answered"
                assert time.monotonic() - began < SOON_SECONDS
                await until(lambda: jobs.states("r1") == ["completed"], "the job is acknowledged")
    (job,) = jobs.of("r1")
    assert (job["attempt"], job["errors"]) == (1, [])


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER])
async def test_acknowledgement_that_was_not_heard_is_made_again(
    jobs: Jobs, wiped_url: str, clerk: Clerk, cut: Cut
) -> None:
    with Network(wiped_url) as network:
        async with make_app(network.url, clerk) as app:
            strike = network.strike(cut, ACKNOWLEDGE)
            async with app.worker():
                run = await app.enqueue("clerk", "file", key="r1")
                assert await run.result(timeout=120) == "answered"
                await until(strike.done.is_set, "the network strikes")
                other = await app.enqueue("clerk", "file", key="r2")
                assert await other.result(timeout=SOON_SECONDS) == "answered"
                await until(lambda: jobs.states("r1") == ["completed"], "the job is acknowledged")
    assert clerk.worked == ["file", "file"]


async def test_worker_whose_oban_gets_no_connection_begins_to_work_when_it_does(
    wiped_url: str, clerk: Clerk, caplog: pytest.LogCaptureFixture
) -> None:
    with role(wiped_url, "few", GRANTS) as url:
        async with make_app(f"{url}?pool_size=1&notify=off", clerk) as app, app.worker() as worker:
            await until(lambda: "Oban cannot be started yet" in caplog.text, "it was tried")
            with psycopg.connect(wiped_url, autocommit=True) as connection:
                connection.execute("ALTER ROLE few CONNECTION LIMIT 50")
            assert await _enqueued_and_answered(app)
            assert not worker.leaving


async def test_job_that_cannot_be_answered_now_spends_no_attempt_of_its_own(
    jobs: Jobs, wiped_url: str, clerk: Clerk, caplog: pytest.LogCaptureFixture
) -> None:
    with Network(wiped_url) as network:
        async with make_app(network.url, clerk) as app:
            run = await app.enqueue("clerk", "file", key="r1")
            strikes = [network.strike(Cut.BEFORE, "SET state = 'executing', attempt") for _ in "12"]
            async with app.worker():
                assert await run.result(timeout=120) == "answered"
                assert all(strike.done.is_set() for strike in strikes)
                await until(lambda: jobs.states("r1") == ["completed"], "the job is acknowledged")
            assert (await run.refresh()).state is RunState.COMPLETED
    (job,) = jobs.of("r1")
    assert (job["attempt"], job["errors"]) == (1, [])


async def _enqueued_and_answered(app: Durably) -> bool:
    run = await app.enqueue("clerk", "file", key="r1")
    return await run.result(timeout=SOON_SECONDS) == "answered"
