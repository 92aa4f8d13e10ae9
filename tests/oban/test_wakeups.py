"""One job for each wake-up; lost jobs, dead nodes and duplicates change nothing about the runs."""

from __future__ import annotations

import pytest

from durably import Durably, RunState
from support.clerk import Clerk, Jobs, make_app, until


async def test_run_has_one_job_with_its_key_only(app: Durably, jobs: Jobs) -> None:
    await app.enqueue("clerk", "file", key="r1", queue="agents", priority=3)
    (job,) = jobs.of("r1")
    assert (job["worker"], job["queue"], job["state"]) == (
        "durably.RunAgent",
        "agents",
        "available",
    )
    assert (job["args"], job["priority"]) == ({"key": "r1"}, 3)


async def test_run_that_is_there_already_gets_no_second_job(app: Durably, jobs: Jobs) -> None:
    for _ in range(2):
        await app.enqueue("clerk", "file", key="r1")
    assert jobs.states("r1") == ["available"]


async def test_job_ends_with_the_attempt(app: Durably, jobs: Jobs) -> None:
    async with app.worker():
        run = await app.enqueue("clerk", "file", key="r1")
        assert await run.result(timeout=120) == "answered"
        await until(lambda: jobs.states("r1") == ["completed"], "the job is acknowledged")


async def test_failed_attempt_shows_in_oban_and_the_next_has_a_job_of_its_own(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.failures = 1
    async with app.worker():
        run = await app.enqueue("clerk", "file", key="r1")
        assert await run.result(timeout=120) == "answered"
        await until(
            lambda: jobs.states("r1") == ["discarded", "completed"], "both jobs are acknowledged"
        )
    assert "the printer burns" in jobs.of("r1")[0]["errors"][0]["error"]
    assert len(jobs.of("r1")[0]["errors"]) == 1
    assert ((await run.refresh()).record.attempt, run.record.failures) == (2, 1)


async def test_run_of_the_future_waits_in_oban(app: Durably, jobs: Jobs) -> None:
    await app.enqueue("clerk", "file", key="r1", delay=3600)
    (job,) = jobs.of("r1")
    assert job["state"] == "scheduled"
    seconds = jobs.sql(
        "SELECT extract(epoch FROM scheduled_at - timezone('UTC', now())) AS it FROM oban_jobs"
    )
    assert 3500 < seconds[0]["it"] <= 3600


async def test_run_is_executed_when_it_comes_due(app: Durably, jobs: Jobs) -> None:
    async with app.worker():
        run = await app.enqueue("clerk", "file", key="r1", delay=0.2)
        assert await run.result(timeout=120) == "answered"
        await until(lambda: jobs.states("r1") == ["completed"], "its one job")


async def test_cancelled_run_takes_its_waiting_job_along(app: Durably, jobs: Jobs) -> None:
    run = await app.enqueue("clerk", "file", key="r1", delay=3600)
    await run.cancel()
    assert jobs.states("r1") == ["cancelled"]


@pytest.mark.parametrize(
    "loss",
    [
        "DELETE FROM oban_jobs",
        "UPDATE oban_jobs SET state = 'completed', completed_at = now()",
        "UPDATE oban_jobs SET state = 'discarded', discarded_at = now()",
        "UPDATE durably_runs SET job_id = NULL; DELETE FROM oban_jobs",
        # Fetched by a node that was killed before it could claim the run.
        "UPDATE oban_jobs SET state = 'executing', attempt = 1, attempted_at = now(), "
        "attempted_by = ARRAY['dead:1:abc', 'x']",
    ],
    ids=["deleted", "completed", "discarded", "unknown", "dead node"],
)
async def test_lost_job_never_strands_a_run(app: Durably, jobs: Jobs, loss: str) -> None:
    run = await app.enqueue("clerk", "file", key="r1")
    for statement in loss.split(";"):
        jobs.sql(statement)
    async with app.worker():
        assert await run.result(timeout=120) == "answered"
    assert [event.kind for event in await run.events()].count("redispatched") == 1


async def test_run_that_is_not_due_yet_is_woken_in_time_without_its_job(
    app: Durably, jobs: Jobs
) -> None:
    run = await app.enqueue("clerk", "file", key="r1", delay=1.0)
    jobs.sql("DELETE FROM oban_jobs")
    async with app.worker():
        assert await run.result(timeout=120) == "answered"


async def test_healthy_runs_are_given_no_second_job(
    app: Durably, jobs: Jobs, clerk: Clerk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durably.maintenance.LOST_SECONDS", 0.0)
    monkeypatch.setattr("durably.maintenance.LOOK_SECONDS", 0.01)
    async with app.worker():
        runs = [await app.enqueue("clerk", "file", key=f"r{n}") for n in range(30)]
        for run in runs:
            assert await run.result(timeout=120) == "answered"
    assert {len(jobs.of(run.key)) for run in runs} == {1}


async def test_duplicate_jobs_execute_a_run_once(app: Durably, jobs: Jobs, clerk: Clerk) -> None:
    clerk.gate.clear()
    run = await app.enqueue("clerk", "file", key="r1")
    for _ in range(3):
        jobs.insert('{"key": "r1"}')
    async with app.worker():
        await until(lambda: jobs.states("r1").count("scheduled") == 3, "the others snooze")
        await until(lambda: clerk.worked == ["file"], "one executes it")
        clerk.gate.set()
        assert await run.result(timeout=120) == "answered"
        jobs.sql(
            "UPDATE oban_jobs SET scheduled_at = timezone('UTC', now()) WHERE state = 'scheduled'"
        )
        await until(lambda: jobs.states("r1") == ["completed"] * 4, "they end without a word")
    assert (clerk.worked, (await run.refresh()).record.attempt) == (["file"], 1)


async def test_job_of_a_run_that_nobody_knows_says_so(app: Durably, jobs: Jobs) -> None:
    job = jobs.insert('{"key": "ghost"}')
    async with app.worker():
        await until(lambda: jobs.states("ghost") == ["cancelled"], "the job is over")
    (found,) = jobs.sql("SELECT errors FROM oban_jobs WHERE id = %s", job)
    assert "No run has the key 'ghost'" in found["errors"][0]["error"]


async def test_suspended_run_has_no_job_until_it_is_woken(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    from durably.ledger import attempts
    from durably.ledger.written import Step

    run = await app.enqueue("clerk", "file", key="r1")
    (claimed,) = await app.ledger.write(attempts.claim, "w", "agents", 1)
    await app.ledger.write(attempts.suspend, claimed.claim, "change", {}, Step())
    jobs.sql("DELETE FROM oban_jobs")
    await run.retry()
    assert jobs.states("r1") == ["available"]
    async with app.worker():
        assert await run.result(timeout=120) == "answered"


async def test_leaving_worker_hands_runs_to_another_at_once(
    app: Durably, jobs: Jobs, clerk: Clerk, wiped_url: str
) -> None:
    clerk.gate.clear()
    async with make_app(wiped_url, clerk) as other, other.worker(queues={"elsewhere": 1}):
        async with app.worker():
            run = await app.enqueue("clerk", "file", key="r1")
            await until(lambda: clerk.worked == ["file"], "the tool is running")
            clerk.gate.set()
        await run.refresh()
        assert run.state in (RunState.AVAILABLE, RunState.COMPLETED)
        async with other.worker():
            assert await run.result(timeout=120) == "answered"
    assert (await run.refresh()).record.failures == 0
    assert "executing" not in jobs.states("r1")


async def test_run_that_outlasts_obans_patience_is_not_disturbed(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    # Oban takes a job that executes for long (5 minutes, here 0.2 s) for lost.
    impatient = {"lifeline": {"interval": 0.05, "rescue_after": 0.2}}
    clerk.gate.clear()
    async with app.worker(oban=impatient):
        run = await app.enqueue("clerk", "file", key="r1")
        await until(lambda: jobs.states("r1") == ["scheduled"], "the job comes again, and waits")
        assert (await run.refresh()).state is RunState.EXECUTING
        clerk.gate.set()
        assert await run.result(timeout=120) == "answered"
        jobs.sql("UPDATE oban_jobs SET scheduled_at = timezone('UTC', now())")
        await until(lambda: jobs.states("r1") == ["completed"], "the job is over as well")
    assert (clerk.worked, (await run.refresh()).record.attempt) == (["file"], 1)
