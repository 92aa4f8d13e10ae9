"""Jobs that ask for a run, as any language inserts them: what their args mean, and what if they
cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durably import Durably, RunState
from support.clerk import Clerk, Jobs, until

ASKED: dict[str, Any] = {"agent": "clerk", "key": "r1", "prompt": "file"}


def ask(jobs: Jobs, *, queue: str = "agents", columns: dict[str, Any] | None = None, **args: Any):
    return jobs.insert(json.dumps(ASKED | args), queue, **(columns or {}))


async def has_run(app: Durably, key: str = "r1") -> bool:
    return any(run.key == key for run in await app.runs())


async def ended(jobs: Jobs, job: int, state: str) -> str | None:
    """Wait until a job has ended like this; its last error."""

    def over() -> bool:
        return jobs.sql("SELECT state FROM oban_jobs WHERE id = %s", job)[0]["state"] == state

    await until(over, f"job {job} is {state}")
    errors = jobs.sql("SELECT errors FROM oban_jobs WHERE id = %s", job)[0]["errors"]
    return errors[-1]["error"] if errors else None


async def test_job_makes_its_run_and_executes_it(app: Durably, jobs: Jobs, clerk: Clerk) -> None:
    async with app.worker():
        job = ask(jobs)
        await until(lambda: has_run(app), "the run is there")
        run = await app.get("r1")
        assert await run.result(timeout=120) == "answered"
        assert await ended(jobs, job, "completed") is None
    assert (clerk.worked, run.record.attempt) == (["file"], 1)
    assert len(jobs.sql("SELECT * FROM oban_jobs")) == 1


async def test_options_are_those_of_enqueue(app: Durably, jobs: Jobs) -> None:
    async with app.worker():
        ask(
            jobs,
            args={"customer": 7},
            queue="agents",
            columns={"priority": 3, "tags": ["from-elixir"]},
            max_attempts=2,
            meta={"trace": "t1"},
        )
        await until(lambda: has_run(app), "the run is there")
        run = (await app.get("r1")).record
        assert await (await app.get("r1")).result(timeout=120) == "answered"
    assert (run.queue, run.priority, run.tags) == ("agents", 3, ["from-elixir"])
    assert (run.max_attempts, dict(run.meta)) == (2, {"trace": "t1"})
    (args,) = jobs.sql("SELECT args FROM durably_inputs")
    assert args["args"] == {"customer": 7}


async def test_args_win_over_the_jobs_own_columns(app: Durably, jobs: Jobs) -> None:
    async with app.worker():
        job = jobs.insert(
            json.dumps(ASKED | {"priority": 1, "tags": ["a"]}), priority=8, tags=["b"]
        )
        await ended(jobs, job, "completed")
    run = (await app.get("r1")).record
    assert (run.priority, run.tags) == (1, ["a"])


async def test_run_of_another_queue_waits_there(app: Durably, jobs: Jobs, clerk: Clerk) -> None:
    async with app.worker():
        job = jobs.insert(json.dumps(ASKED | {"queue": "elsewhere"}))
        await ended(jobs, job, "completed")
        run = await app.get("r1")
        assert (run.state, run.record.queue) == (RunState.AVAILABLE, "elsewhere")
        assert [j["queue"] for j in jobs.of("r1")] == ["agents", "elsewhere"]
    assert clerk.worked == []
    async with app.worker(queues={"elsewhere": 1}):
        assert await run.result(timeout=120) == "answered"


@pytest.mark.parametrize("late", [{"delay": 3600}, {"scheduled_at": "2100-01-01T00:00:00Z"}])
async def test_run_of_the_future_waits_for_its_time(
    app: Durably, jobs: Jobs, clerk: Clerk, late: dict[str, Any]
) -> None:
    async with app.worker():
        job = ask(jobs, **late)
        await ended(jobs, job, "completed")
        assert (await app.get("r1")).state is RunState.SCHEDULED
        assert [j["state"] for j in jobs.of("r1")] == ["completed", "scheduled"]
    assert clerk.worked == []


async def test_prompt_may_have_parts(app: Durably, jobs: Jobs, clerk: Clerk) -> None:
    async with app.worker():
        job = ask(jobs, prompt=["one", {"kind": "image-url", "url": "https://shop.example/1.png"}])
        await ended(jobs, job, "completed")
    (prompt,) = [run.record for run in await app.runs()]
    assert prompt.state is RunState.COMPLETED


async def test_same_request_twice_is_one_run(app: Durably, jobs: Jobs, clerk: Clerk) -> None:
    async with app.worker():
        first, second = ask(jobs), ask(jobs)
        await ended(jobs, first, "completed")
        await ended(jobs, second, "completed")
        third = ask(jobs)
        await ended(jobs, third, "completed")
    assert (clerk.worked, len(await app.runs())) == (["file"], 1)


async def test_request_for_a_run_that_waits_does_not_hasten_it(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    run = await app.enqueue("clerk", "file", key="r1", delay=3600)
    async with app.worker():
        await ended(jobs, ask(jobs), "completed")
    assert (await run.refresh()).state is RunState.SCHEDULED
    assert clerk.worked == []


async def test_request_for_a_run_that_is_being_executed_ends_at_once(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.gate.clear()
    async with app.worker():
        run = await app.enqueue("clerk", "file", key="r1")
        await until(lambda: clerk.worked == ["file"], "the tool is running")
        await ended(jobs, ask(jobs), "completed")
        assert (await run.refresh()).state is RunState.EXECUTING
        clerk.gate.set()
        assert await run.result(timeout=120) == "answered"


async def test_request_that_comes_to_a_paused_queue_waits(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    await app.pause("agents")
    async with app.worker(queues={"agents": 1, "marker": 1}):
        ask(jobs)
        marker = await app.enqueue("clerk", "marker", queue="marker")
        assert await marker.result(timeout=120) == "answered"
        assert clerk.worked == ["marker"]
        await app.resume("agents")
        await until(lambda: clerk.worked == ["marker", "file"], "it is executed")


async def test_failed_attempt_is_repeated_by_a_job_of_the_run(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.failures = 1
    async with app.worker():
        job = ask(jobs)
        error = await ended(jobs, job, "discarded")
        assert error is not None and "the printer burns" in error
        run = await app.get("r1")
        assert await run.result(timeout=120) == "answered"
    assert (await run.refresh()).record.attempt == 2


async def test_unknown_agent_discards_the_run_and_says_so_in_both_places(
    app: Durably, jobs: Jobs
) -> None:
    async with app.worker():
        error = await ended(jobs, ask(jobs, agent="nobody"), "discarded")
    assert error is not None and "No agent named 'nobody' is registered" in error
    run = await app.get("r1")
    assert run.state is RunState.DISCARDED and "nobody" in str(run.record.error)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({}, "key: field required"),
        ({"key": ""}, "key: "),
        ({"key": "r1", "agent": "clerk"}, "prompt: field required"),
        ({"prompt": "file", "key": "r1"}, "agent: field required"),
        ({"agent": "clerk", "prompt": "file"}, "key: field required"),
        (ASKED | {"prompt": 7}, "prompt"),
        (ASKED | {"prompt": [7]}, "prompt"),
        (ASKED | {"urgent": True}, "urgent: extra inputs are not permitted"),
        (ASKED | {"priority": 17}, "priority=17"),
        (ASKED | {"max_attempts": 0}, "max_attempts=0"),
        (ASKED | {"delay": -1}, "delay=-1"),
        (ASKED | {"scheduled_at": "2100-01-01T00:00:00"}, "scheduled_at: "),
        (ASKED | {"args": [1]}, "args: "),
        (ASKED | {"key": " "}, "The key is empty"),
    ],
)
async def test_args_that_cannot_be_cancel_the_job_and_say_why(
    app: Durably, jobs: Jobs, args: dict[str, Any], said: str
) -> None:
    async with app.worker():
        error = await ended(jobs, jobs.insert(json.dumps(args)), "cancelled")
    assert error is not None and said in error and "\n" not in error
    assert await app.runs() == []


@pytest.mark.parametrize("other", [{"prompt": "shred"}, {"agent": "maid"}, {"args": {"x": 1}}])
async def test_key_of_another_run_cancels_the_job_and_leaves_the_run(
    app: Durably, jobs: Jobs, clerk: Clerk, other: dict[str, Any]
) -> None:
    run = await app.enqueue("clerk", "file", key="r1", delay=3600)
    async with app.worker():
        error = await ended(jobs, ask(jobs, **other), "cancelled")
    assert error is not None and "The key 'r1' belongs to a run with another" in error
    assert (await run.refresh()).state is RunState.SCHEDULED


async def test_cancelling_the_job_before_it_comes_leaves_no_run(app: Durably, jobs: Jobs) -> None:
    job = ask(jobs)
    jobs.sql("UPDATE oban_jobs SET state = 'cancelled' WHERE id = %s", job)
    async with app.worker():
        marker = await app.enqueue("clerk", "marker", key="marker")
        assert await marker.result(timeout=120) == "answered"
    assert [run.key for run in await app.runs()] == ["marker"]


async def test_retrying_the_job_revives_its_discarded_run(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.failures = 1
    async with app.worker():
        job = ask(jobs, max_attempts=1)
        await ended(jobs, job, "discarded")
        jobs.sql(
            "UPDATE oban_jobs SET state = 'available', max_attempts = greatest(max_attempts, "
            "attempt + 1), scheduled_at = timezone('UTC', now()), discarded_at = NULL"
        )
        await ended(jobs, job, "completed")
    assert (await app.get("r1")).output() == "answered"
