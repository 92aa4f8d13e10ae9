"""A crash in this process: the promises hold wherever it falls, and nothing more is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from pydantic_ai import Agent

from durably import ConfigError, Durably, RunState, boundaries, current_call, effects
from durably.testing import Clock, ScriptedModel, assert_effects, call, crash_at, drain


class Shop:
    """An agent with one tool, and what that did."""

    def __init__(self, policy: dict[str, object]) -> None:
        self.charged: list[str] = []
        self.model = ScriptedModel(call("charge", cents=5), "Paid.")
        self.agent = Agent(self.model, name="cashier")

        @self.agent.tool_plain(metadata=policy)
        async def charge(cents: int) -> str:
            self.charged.append(current_call().idempotency_key)
            return "payment 7"


async def test_a_checkpointed_response_is_not_asked_for_again(durably_app: Durably) -> None:
    shop = Shop(effects.IDEMPOTENT)
    run = await durably_app.enqueue(shop.agent, "Charge 5 cents.", key="k")
    async with crash_at(durably_app, "checkpoint:after") as crash:
        await durably_app.drain()
    assert crash.happened
    await run.refresh()
    assert run.state is RunState.EXECUTING, "it died with the run in its hands"
    assert (shop.model.requests, shop.charged) == (1, [])

    assert (await drain(durably_app)).attempts == 1
    await run.refresh()
    assert run.output() == "Paid."
    assert (shop.model.requests, shop.charged) == (2, ["k:1.0"])
    assert [a.outcome and str(a.outcome) for a in await run.attempts()] == ["lost", "completed"]


async def test_a_call_is_in_doubt_between_tool_and_outcome(durably_app: Durably) -> None:
    shop = Shop(effects.once())
    run = await durably_app.enqueue(shop.agent, "Charge 5 cents.", key="k")
    async with crash_at(durably_app, "outcome:before", tool="charge"):
        await durably_app.drain()
    await durably_app.drain()
    await assert_effects(run, {"charge": "in_doubt"})
    (waiting,) = await durably_app.inbox()
    await run.resolve(waiting.effect.call_id, done="payment 7")
    await durably_app.drain()
    await run.refresh()
    assert (run.output(), shop.charged) == ("Paid.", ["k:1.0"])


async def test_the_nth_time_and_the_tool_are_counted(durably_app: Durably) -> None:
    seen: list[str] = []
    agent = Agent(
        ScriptedModel([call("look"), call("peek")], [call("look"), call("peek")], "Seen."),
        name="scout",
    )

    @agent.tool_plain(metadata=effects.READ)
    async def look() -> str:
        seen.append("look")
        return "a"

    @agent.tool_plain(metadata=effects.READ)
    async def peek() -> str:
        seen.append("peek")
        return "b"

    await durably_app.enqueue(agent, "Look around.", key="k")
    async with crash_at(durably_app, "tool:before", 2, tool="peek") as crash:
        await durably_app.drain()
    assert seen.count("peek") == 1
    assert crash.reached["tool:before"] in (3, 4)


async def test_nothing_is_written_after_the_crash_whatever_finally_does(
    durably_app: Durably,
) -> None:
    shop = Shop(effects.once())
    tried: list[BaseException] = []

    @shop.agent.tool_plain(metadata=effects.READ)
    async def stubborn() -> str:
        try:
            await asyncio.sleep(3600)
        finally:
            for attempt in (
                lambda: durably_app.enqueue(shop.agent, "More!", key="after"),
                lambda: durably_app.pause("agents"),
                lambda: durably_app.get("k"),
            ):
                try:
                    await attempt()
                except BaseException as error:
                    tried.append(error)
        return "never"

    shop.model = ScriptedModel([call("stubborn"), call("charge", cents=1)], "Paid.")
    await durably_app.enqueue(shop.agent, "Charge.", key="k")
    with shop.agent.override(model=shop.model):
        async with crash_at(durably_app, "outcome:before"):
            await durably_app.drain()
    assert [type(error) for error in tried] == [boundaries.Died] * 3
    assert [run.key for run in await durably_app.runs()] == ["k"]
    assert not any(queue.paused for queue in await durably_app.queues())


@pytest.mark.parametrize("boundary", ["commit:before", "commit:after"])
async def test_a_commit_is_made_or_not_as_the_crash_falls(
    durably_app: Durably, boundary: str
) -> None:
    shop = Shop(effects.READ)
    async with crash_at(durably_app, boundary) as crash:
        await durably_app.enqueue(shop.agent, "Charge.", key="k")
    assert crash.reached == (
        {boundary: 1} if boundary == "commit:before" else {"commit:before": 1, "commit:after": 1}
    )
    there = [run.key for run in await durably_app.runs()]
    assert there == ([] if boundary == "commit:before" else ["k"])


async def test_a_boundary_that_is_not_reached_fails_the_test(durably_app: Durably) -> None:
    shop = Shop(effects.READ)
    await durably_app.enqueue(shop.agent, "Charge.", key="k")
    with pytest.raises(
        AssertionError, match=r"Nothing came to 'intent:after'\. .*tool:after \(1\)"
    ):
        async with crash_at(durably_app, "intent:after"):
            await durably_app.drain()
    with pytest.raises(AssertionError, match=r"'tool:after' of tool 'refund' for the 2\. time"):
        async with crash_at(durably_app, "tool:after", 2, tool="refund"):
            pass
    with pytest.raises(ConfigError, match="no boundary 'tool:later'; there is 'tool:after'"):
        async with crash_at(durably_app, "tool:later"):
            pass
    with pytest.raises(ConfigError, match="nth=0"):
        async with crash_at(durably_app, "tool:after", 0):
            pass
    assert durably_app.ledger.beside().url == durably_app.ledger.url, "the app has its own again"


async def test_errors_of_the_block_and_cancellation_from_elsewhere_are_let_through(
    durably_app: Durably,
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with crash_at(durably_app, "tool:after"):
            raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), crash_at(durably_app, "tool:after"):
            await asyncio.sleep(3600)


async def test_handles_made_before_and_within_the_block_go_on(durably_app: Durably) -> None:
    shop = Shop(effects.IDEMPOTENT)
    async with crash_at(durably_app, "tool:after"):
        run = await durably_app.enqueue(shop.agent, "Charge.", key="k")
        await durably_app.drain()
    await durably_app.drain()
    await run.refresh()
    assert (run.output(), shop.charged) == ("Paid.", ["k:1.0", "k:1.0"])


async def test_a_script_dies_and_goes_on_when_it_is_run_again(durably_app: Durably) -> None:
    shop = Shop(effects.once())
    async with crash_at(durably_app, "outcome:after"):
        await durably_app.run(shop.agent, "Charge.", key="k")
    assert await durably_app.run(shop.agent, "Charge.", key="k") == "Paid."
    assert shop.charged == ["k:1.0"]


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
async def test_a_worker_of_this_process_dies_as_well(durably_app: Durably) -> None:
    shop = Shop(effects.IDEMPOTENT)
    run = await durably_app.enqueue(shop.agent, "Charge.", key="k")
    async with crash_at(durably_app, "settle:before"), durably_app.worker(queues={"agents": 2}):
        await run.result(timeout=600)
    async with durably_app.worker(queues={"agents": 2}):
        assert await run.result(timeout=600) == "Paid."
    assert shop.charged == ["k:1.0"]


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
async def test_a_worker_with_oban_is_refused_in_the_block(durably_app: Durably) -> None:
    with pytest.raises(ConfigError, match="Oban has connections of its own"):
        async with crash_at(durably_app, "settle:before"), durably_app.worker():
            pass


async def test_a_dead_worker_is_not_moved_along_with_the_clock(
    durably_make_app: Callable[..., Durably], durably_clock: Clock
) -> None:
    app = durably_make_app()
    shop = Shop(effects.IDEMPOTENT)
    await app.enqueue(shop.agent, "Charge.", key="k")
    async with crash_at(app, "tool:after"):
        await app.drain()
    durably_clock.advance(timedelta(hours=1))
    assert [worker.alive for worker in await app.workers()] == [False]
    assert (await drain(app)).attempts == 1
