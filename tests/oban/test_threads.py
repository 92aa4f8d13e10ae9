"""A threaded conversation with Oban: who waits in line has no job, and gets one at its turn."""

from __future__ import annotations

import json

from durably import Durably, RunState
from support.clerk import Clerk, Jobs, until

T = "customer-7"


async def test_run_in_line_has_no_job_until_its_turn(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.gate.clear()
    async with app.worker():
        line = [await app.enqueue("clerk", f"m{n}", key=f"r{n}", thread=T) for n in range(3)]
        await until(lambda: clerk.worked == ["m0"], "the first is going")
        assert [len(jobs.of(run.key)) for run in line] == [1, 0, 0]
        clerk.gate.set()
        for run in line:
            assert await run.result(timeout=120) == "answered"
    assert [run.record.attempt for run in line] == [1, 1, 1]
    assert [jobs.states(run.key) for run in line] == [["completed"]] * 3
    ends = [run.record.finished_at for run in line]
    assert ends == sorted(ends, key=str)


def asking(key: str, **options: object) -> str:
    return json.dumps({"agent": "clerk", "key": key, "prompt": key, "thread": T, **options})


async def test_jobs_of_other_languages_continue_a_thread(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.gate.clear()
    async with app.worker():
        first = await app.enqueue("clerk", "first", key="first", thread=T)
        await until(lambda: clerk.worked == ["first"], "the first is going")
        waits = jobs.insert(asking("second"))
        await until(lambda: _state(jobs, waits) == "completed", "its job ends")
        second = await app.get("second")
        assert second.record.in_line
        refused = jobs.insert(asking("third", on_busy="reject"))
        await until(lambda: _state(jobs, refused) == "cancelled", "its job is cancelled")
        (job,) = jobs.sql("SELECT errors::text FROM oban_jobs WHERE id = %s", refused)
        assert "is busy: its run 'first'" in job["errors"]
        clerk.gate.set()
        assert await second.result(timeout=120) == "answered"
    assert (await first.refresh()).state is RunState.COMPLETED
    assert [run.key for run in await app.runs(thread=T)] == ["second", "first"]


async def test_job_of_another_language_interrupts(app: Durably, jobs: Jobs, clerk: Clerk) -> None:
    clerk.gate.clear()
    async with app.worker():
        first = await app.enqueue("clerk", "first", key="first", thread=T)
        await until(lambda: clerk.worked == ["first"], "the first is going")
        jobs.insert(asking("second", on_busy="interrupt"))

        async def interrupted() -> bool:
            return (await first.refresh()).state is RunState.CANCELLED

        await until(interrupted, "the first is cancelled")
        clerk.gate.set()
        assert await (await app.get("second")).result(timeout=120) == "answered"


async def test_retrying_the_job_of_a_run_that_its_thread_has_passed_revives_nothing(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.failures = 1
    async with app.worker():
        first = await app.enqueue("clerk", "first", key="first", thread=T, max_attempts=1)
        second = await app.enqueue("clerk", "second", key="second", thread=T)
        assert await second.result(timeout=120) == "answered"
        await until(lambda: jobs.states("first") == ["discarded"], "the job is acknowledged")
        (job,) = jobs.of("first")
        jobs.sql(
            "UPDATE oban_jobs SET state = 'available', max_attempts = max_attempts + 1, "
            "discarded_at = NULL, scheduled_at = timezone('UTC', now()) WHERE id = %s",
            job["id"],
        )
        await until(lambda: jobs.states("first") == ["completed"], "it ends without a word")
    assert (await first.refresh()).state is RunState.DISCARDED


def _state(jobs: Jobs, job_id: int) -> str:
    return jobs.sql("SELECT state FROM oban_jobs WHERE id = %s", job_id)[0]["state"]
