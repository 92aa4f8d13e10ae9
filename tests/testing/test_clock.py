"""The injected clock: what is due follows it, and who is alive stays so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from pydantic_ai import Agent

import durably
from durably import ConfigError, Durably, RetryPolicy, RunState, effects
from durably.testing import Clock, ScriptedModel, assert_effects, call, drain

type MakeApp = Callable[..., Durably]


async def test_scheduled_runs_retries_timers_and_time_limits_follow_the_clock(
    durably_app: Durably, durably_clock: Clock
) -> None:
    model = ScriptedModel(ConnectionError("away"), [call("nap"), call("refund")], "Done.")
    agent = Agent(model, name="clerk")

    @agent.tool_plain(metadata=effects.READ)
    async def nap() -> str:
        await durably.sleep(timedelta(hours=2))
        return "rested"

    @agent.tool_plain(
        metadata=effects.once(approve=True, approve_within=5 * 3600, on_expiry="deny")
    )
    async def refund() -> str:
        raise AssertionError("nobody approved it")

    durably_app.register(agent, retry=RetryPolicy(initial_seconds=600, jitter=0))
    run = await durably_app.enqueue(agent, "Work.", key="k", delay=86_400)
    assert (await drain(durably_app)).attempts == 0

    durably_clock.advance(timedelta(days=1))
    drained = await drain(durably_app)
    assert (drained.attempts, [str(e) for e in drained.failures]) == (1, ["away"])
    assert (await run.refresh()).state is RunState.RETRYABLE
    assert (await drain(durably_app)).attempts == 0

    durably_clock.advance(601)
    assert (await drain(durably_app)).attempts == 1
    assert (await run.refresh()).state is RunState.SUSPENDED
    assert len(await durably_app.inbox()) == 1

    durably_clock.advance(timedelta(hours=2))
    await durably_app.drain()
    assert (await run.refresh()).state is RunState.SUSPENDED, "the question is still open"
    durably_clock.advance(timedelta(hours=3))
    await durably_app.drain()
    assert (await run.refresh()).output() == "Done."
    await assert_effects(run, {"nap": 1, "nap/sleep": 1, "refund": "denied"})


async def test_a_live_worker_keeps_its_runs_however_far_the_clock_is_moved(
    durably_app: Durably, durably_make_app: MakeApp, durably_clock: Clock
) -> None:
    """Health is not progress: an hour in which it went on beating."""
    agent = Agent(ScriptedModel(call("wait_an_hour"), "Done."), name="clerk")
    other = durably_make_app(agents=[agent])
    stolen: list[int] = []

    @agent.tool_plain(metadata=effects.once())
    async def wait_an_hour() -> str:
        durably_clock.advance(3600)
        stolen.append((await drain(other)).attempts)
        return "waited"

    run = await durably_app.enqueue(agent, "Wait.", key="k")
    assert (await drain(durably_app)).attempts == 1
    assert ((await run.refresh()).output(), stolen) == ("Done.", [0])
    assert [attempt.attempt for attempt in await run.attempts()] == [1]


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_worker_that_waits_for_a_time_is_woken_by_the_clock(
    durably_app: Durably, durably_clock: Clock
) -> None:
    agent = Agent(ScriptedModel("Done."), name="clerk")
    run = await durably_app.enqueue(agent, "Later.", key="k", delay=30 * 86_400)
    async with durably_app.worker(queues={"agents": 1}):
        durably_clock.advance(timedelta(days=30))
        assert await run.result(timeout=600) == "Done."


def test_a_clock_goes_or_stands_until_it_is_moved() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    standing, going = Clock(noon), Clock()
    standing.advance(timedelta(minutes=1))
    standing.advance(0.5)
    assert standing() == standing.now == noon + timedelta(seconds=60.5)
    before = datetime.now(UTC)
    going.advance(10)
    assert before + timedelta(seconds=10) <= going.now <= datetime.now(UTC) + timedelta(seconds=10)
    standing.advance(timedelta(seconds=-60.5))
    assert standing.now == noon
    with pytest.raises(ConfigError, match="a number of seconds"):
        standing.advance(float("nan"))
    with pytest.raises(ConfigError, match="time zone"):
        Clock(datetime(2026, 3, 1))
