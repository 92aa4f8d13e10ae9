"""Workers that die: others take over when the lease is over, not when Oban would notice."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime

import psycopg
import pytest

from crash.processes import ended
from durably import RunState
from faults import children, shift
from faults.site import ALONE, EVERYTHING, Site, in_thread
from matrix.record import proved
from support.sample import longer

pytestmark = pytest.mark.timeout(1800)

ROUNDS = 4 if EVERYTHING else 1

LEASES = pytest.mark.parametrize("lease_seconds", [1.0, longer(5.0)])

TAKEN_OVER = """
SELECT r.key, a.attempt, b.started_at FROM durably_attempts a
JOIN durably_runs r ON r.id = a.run_id
JOIN durably_attempts b ON b.run_id = a.run_id AND b.attempt = a.attempt + 1
WHERE a.outcome = 'lost'
"""


@LEASES
async def test_runs_of_a_dead_worker_go_on_when_its_lease_is_over(
    site: Site, lease_seconds: float
) -> None:
    site.start_worker(lease=lease_seconds, **ALONE)
    async with site.load(at_once=8, person=True, blamed=True) as load:
        for _ in range(ROUNDS):
            dying = site.start_worker(
                children.killed_at_work, lease=lease_seconds, wait=False, **ALONE
            )
            assert await in_thread(ended, dying) == -signal.SIGKILL
            died_at = datetime.now(UTC)
            site.forget(dying)
            await load.progress(8)
    taken_over = site.database.rows(TAKEN_OVER)
    assert taken_over, "it had runs"
    seconds = max((row["started_at"] - died_at).total_seconds() for row in taken_over)
    print(f"lease {lease_seconds:g} s: {len(taken_over)} runs taken over after {seconds:.1f} s")
    proved("process killed", moment="tool", policy="all", database="postgres", times=ROUNDS)


@LEASES
@pytest.mark.parametrize("asked_by", [longer("durably"), "another language"])
async def test_job_of_a_worker_that_died_before_its_claim_comes_again(
    site: Site, lease_seconds: float, asked_by: str
) -> None:
    """Nobody ever claimed the run; for another language there is not even a run."""
    dying = site.start_worker(children.killed_before_the_claim, lease=lease_seconds, **ALONE)
    site.start_worker(lease=lease_seconds, queues={"elsewhere": 1}, **ALONE)
    async with shift.app(site.world) as app:
        if asked_by == "durably":
            await app.enqueue("clerk", "r", key="r")
        else:
            _insert_job(site, '{"agent": "clerk", "key": "r", "prompt": "r"}')
        assert await in_thread(ended, dying) == -signal.SIGKILL
        died_at = datetime.now(UTC)
        site.forget(dying)
        (job,) = site.database.rows("SELECT state, attempted_by FROM oban_jobs")
        assert job["state"] == "executing", "Oban knows nothing of it"
        await in_thread(site.start_worker, lease=lease_seconds, **ALONE)
        await in_thread(site.wait_for_runs, 1)
        assert await (await app.get("r")).result(timeout=300) == "All is well."
    (attempt,) = site.database.rows("SELECT * FROM durably_attempts")
    seconds = (attempt["started_at"] - died_at).total_seconds()
    print(f"lease {lease_seconds:g} s, job of {asked_by}: claimed after {seconds:.1f} s")
    site.check_jobs()
    proved("process killed", moment="job", policy="all", database="postgres")


async def test_job_of_a_worker_that_died_before_its_acknowledgement_is_over_soon(
    site: Site,
) -> None:
    dying = site.start_worker(children.killed_before_the_acknowledgement, lease=1.0, **ALONE)
    async with shift.app(site.world) as app:
        run = await app.enqueue("clerk", "r", key="r")
        assert await in_thread(ended, dying) == -signal.SIGKILL
        site.forget(dying)
        assert (await run.refresh()).state is RunState.COMPLETED
        await in_thread(site.start_worker, lease=1.0, **ALONE)
        await in_thread(site.check_jobs)
        assert (await run.refresh()).record.attempt == 1
    proved("process killed", moment="job", policy="all", database="postgres")


def _insert_job(site: Site, args: str) -> None:
    with psycopg.connect(site.server.url(), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO oban_jobs (queue, worker, args) VALUES ('agents', 'durably.RunAgent', %s)",
            [args],
        )


async def test_healthy_run_that_oban_takes_for_lost_is_executed_once(site: Site) -> None:
    """Oban rescues by age: every job that executes for more than a second, here."""
    impatient = {"lifeline": {"interval": 0.5, "rescue_after": 1}}
    for _ in range(2):
        site.start_worker(oban=impatient)
    async with shift.app(site.world) as app:
        run = await app.enqueue("sleeper", "3", key="r")
        assert await run.result(timeout=300) == "Well slept."
        (attempt,) = await run.attempts()
        assert attempt.outcome == "completed"
    assert list(site.world.effects().values()) == [1]
    (job,) = site.database.rows("SELECT * FROM oban_jobs")
    assert json.loads(job["meta"] or "{}").get("rescued", 0) > 0
    site.check_jobs()
    (job,) = site.database.rows("SELECT * FROM oban_jobs")
    assert job["state"] == "completed"
