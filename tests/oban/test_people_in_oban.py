"""What people do to jobs in Oban reaches the runs; what they do to queues holds on every worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from oban import Oban
from psycopg_pool import AsyncConnectionPool

from durably import Durably, RunState
from support.clerk import Clerk, Jobs, until


@asynccontextmanager
async def somebody_elses_oban(url: str) -> AsyncIterator[Oban]:
    """Oban as another program has it open, such as a web interface: it works no queue."""
    pool = AsyncConnectionPool(url, min_size=1, max_size=2, open=False)
    async with pool, Oban(pool=pool) as oban:
        yield oban


async def test_cancelling_an_executing_job_cancels_its_run(
    app: Durably, jobs: Jobs, clerk: Clerk, wiped_url: str
) -> None:
    clerk.gate.clear()
    async with app.worker(), somebody_elses_oban(wiped_url) as oban:
        run = await app.enqueue("clerk", "file", key="r1")
        await until(lambda: clerk.worked == ["file"], "the tool is running")

        async def cancelled() -> bool:
            # Said again until it is heard: the worker may have begun to listen only now.
            await oban.cancel_job(jobs.of("r1")[0]["id"])
            return jobs.states("r1") == ["cancelled"]

        await until(cancelled, "the job ends")
    assert (await run.refresh()).state is RunState.CANCELLED
    assert "cancel_requested" in [event.kind for event in await run.events()]


@pytest.mark.parametrize("delay", [0, 3600])
async def test_cancelling_a_waiting_job_cancels_its_run_whoever_listens(
    app: Durably, jobs: Jobs, clerk: Clerk, wiped_url: str, delay: float
) -> None:
    run = await app.enqueue("clerk", "file", key="r1", delay=delay)
    async with somebody_elses_oban(wiped_url) as oban:
        await oban.cancel_job(jobs.of("r1")[0]["id"])
    async with app.worker():

        async def cancelled() -> bool:
            return (await run.refresh()).state is RunState.CANCELLED

        await until(cancelled, "the run is cancelled")
    assert clerk.worked == []


async def test_cancel_that_no_node_heard_reaches_an_executing_run(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    # Elixir's Oban marks an executing job as cancelled whether or not its node hears of it.
    clerk.gate.clear()
    async with app.worker():
        run = await app.enqueue("clerk", "file", key="r1")
        await until(lambda: clerk.worked == ["file"], "the tool is running")
        jobs.sql("UPDATE oban_jobs SET state = 'cancelled', cancelled_at = timezone('UTC', now())")

        async def cancelled() -> bool:
            return (await run.refresh()).state is RunState.CANCELLED

        await until(cancelled, "the run is cancelled")


async def test_retrying_the_job_of_a_discarded_run_revives_it(
    app: Durably, jobs: Jobs, clerk: Clerk, wiped_url: str
) -> None:
    clerk.failures = 1
    async with app.worker(), somebody_elses_oban(wiped_url) as oban:
        run = await app.enqueue("clerk", "file", key="r1", max_attempts=1)
        await until(lambda: jobs.states("r1") == ["discarded"], "the job is acknowledged")
        assert (await run.refresh()).state is RunState.DISCARDED
        await oban.retry_job(jobs.of("r1")[0]["id"])
        assert await _answer(run) == "answered"
        await until(lambda: jobs.states("r1") == ["completed"], "the same job ends well")


async def test_retrying_a_job_that_waits_makes_its_run_due_now(
    app: Durably, jobs: Jobs, clerk: Clerk, wiped_url: str
) -> None:
    async with app.worker(), somebody_elses_oban(wiped_url) as oban:
        run = await app.enqueue("clerk", "file", key="r1", delay=3600)
        await oban.retry_job(jobs.of("r1")[0]["id"])
        assert await run.result(timeout=120) == "answered"
    assert "hastened" in [event.kind for event in await run.events()]


async def test_jobs_that_oban_rescues_revive_nothing(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.failures = 1
    async with app.worker():
        run = await app.enqueue("clerk", "file", key="r1", max_attempts=1)
        await until(lambda: jobs.states("r1") == ["discarded"], "the job is acknowledged")
        # As if it had not been acknowledged, and taken for lost.
        jobs.sql(
            "UPDATE oban_jobs SET state = 'available', max_attempts = 20, discarded_at = NULL, "
            "meta = '{\"rescued\": 1}'"
        )
        await until(lambda: jobs.states("r1") == ["completed"], "it ends without a word")
    assert (await run.refresh()).state is RunState.DISCARDED
    assert clerk.worked == ["file"]


async def test_paused_queue_starts_nothing_until_it_is_resumed(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    async with app.worker(queues={"agents": 5, "marker": 1}) as worker:
        await app.pause("agents")
        await until(lambda: worker.queues.paused("agents"), "the worker knows")
        held = await app.enqueue("clerk", "held", key="r1")
        free = await app.enqueue("clerk", "free", key="r2", queue="marker")
        assert await free.result(timeout=120) == "answered"
        assert (await held.refresh()).state is RunState.AVAILABLE
        await app.resume("agents")
        assert await held.result(timeout=120) == "answered"
    assert clerk.worked == ["free", "held"]


async def test_pause_outlives_the_worker(app: Durably, jobs: Jobs, clerk: Clerk) -> None:
    await app.pause("agents")
    held = await app.enqueue("clerk", "held", key="r1")
    free = await app.enqueue("clerk", "free", key="r2", queue="marker")
    async with app.worker(queues={"agents": 5, "marker": 1}):
        assert await free.result(timeout=120) == "answered"
    assert (await held.refresh()).state is RunState.AVAILABLE
    assert clerk.worked == ["free"]


async def test_scaled_queue_executes_so_many_at_once(
    app: Durably, jobs: Jobs, clerk: Clerk
) -> None:
    clerk.gate.clear()
    async with app.worker(queues={"agents": 2}) as worker:
        runs = [await app.enqueue("clerk", f"{n}", key=f"r{n}") for n in range(8)]
        await until(lambda: worker.executing == 2, "two at once")
        await app.scale("agents", 5)
        await until(lambda: worker.executing == 5, "five at once")
        clerk.gate.set()
        for run in runs:
            assert await run.result(timeout=120) == "answered"


async def test_runs_start_by_priority(app: Durably, jobs: Jobs, clerk: Clerk) -> None:
    clerk.gate.clear()
    for n, priority in enumerate([5, 1, 9, 0]):
        await app.enqueue("clerk", f"p{priority}", key=f"r{n}", priority=priority)
    async with app.worker(queues={"agents": 1}):
        clerk.gate.set()
        await until(lambda: len(clerk.worked) == 4, "all have run")
    assert clerk.worked == ["p0", "p1", "p5", "p9"]


async def test_metrics_are_told_to_oban_web(app: Durably, wiped_url: str) -> None:
    heard = asyncio.Event()
    async with somebody_elses_oban(wiped_url) as oban:
        await oban._notifier.listen("metrics", lambda *_: heard.set())  # type: ignore[attr-defined]
        async with app.worker(oban={"metrics": True}):
            run = await app.enqueue("clerk", "file", key="r1")
            assert await run.result(timeout=120) == "answered"
            await asyncio.wait_for(heard.wait(), 120)


async def test_what_durably_sets_itself_is_refused(app: Durably) -> None:
    from durably import ConfigError

    with pytest.raises(ConfigError, match="'prefix' is set by durably itself"):
        async with app.worker(oban={"prefix": "elsewhere"}):
            pass


async def _answer(run: object) -> object:
    """The output of a run that was discarded a moment ago."""
    from durably import Run

    assert isinstance(run, Run)

    async def revived() -> bool:
        return (await run.refresh()).state is RunState.COMPLETED

    await until(revived, "the run is completed")
    return run.output()
