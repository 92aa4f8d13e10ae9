"""Draining, inline execution and scripted models: what they do, and what they say."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry

from durably import Durably, RetryPolicy, RunState, effects
from durably.testing import ScriptedModel, call, chunks, drain, inline, tool_texts

ON_SQLITE = pytest.mark.parametrize("server", ["sqlite"], indirect=True)
AT_ONCE = RetryPolicy(initial_seconds=0, max_seconds=0)


@ON_SQLITE
async def test_drain_tells_and_raises_what_attempts_failed_with(durably_app: Durably) -> None:
    agent = Agent(ScriptedModel(ConnectionError("away"), "Done."), name="clerk")
    durably_app.register(agent, retry=AT_ONCE)
    await durably_app.enqueue(agent, "Work.", key="a")
    drained = await drain(durably_app)
    assert (drained.attempts, [type(e) for e in drained.failures]) == (2, [ConnectionError])

    broken = Agent(ScriptedModel(KeyError("no such order")), name="broken")
    durably_app.register(broken, max_attempts=2, retry=AT_ONCE)
    await durably_app.enqueue(broken, "Work.", key="b")
    with pytest.raises(ExceptionGroup) as raised:
        await drain(durably_app, raise_errors=True)
    assert [type(error) for error in raised.value.exceptions] == [KeyError, KeyError]


async def test_inline_executes_before_enqueue_returns_to_an_end_or_suspension(
    durably_app: Durably,
) -> None:
    cashier = Agent(ScriptedModel(call("charge"), "Paid."), name="cashier")

    @cashier.tool_plain(metadata=effects.once(approve=True))
    async def charge() -> str:
        return "payment 7"

    greeter = Agent(ScriptedModel("Hello."), name="greeter")
    async with inline(durably_app):
        assert (await durably_app.enqueue(greeter, "Hi.", key="a", queue="front")).output() == (
            "Hello."
        )
        run = await durably_app.enqueue(cashier, "Charge.", key="b")
        assert run.state is RunState.SUSPENDED
        assert (await durably_app.enqueue(cashier, "Charge.", key="b")).created is False
        later = await durably_app.enqueue(greeter, "Hi.", key="c", delay=60)
        assert later.state is RunState.SCHEDULED
    assert (await durably_app.enqueue(greeter, "Hi.", key="d")).state is RunState.AVAILABLE


@ON_SQLITE
async def test_inline_raises_what_an_attempt_failed_with(durably_app: Durably) -> None:
    agent = Agent(ScriptedModel("Done."), name="clerk")

    def no_deps(run: Any) -> Any:
        raise LookupError("no customer 7")

    durably_app.register(agent, deps=no_deps)
    async with inline(durably_app):
        with pytest.raises(LookupError, match="no customer 7"):
            await durably_app.enqueue(agent, "Work.", key="a")
    async with inline(durably_app, raise_errors=False):
        run = await durably_app.enqueue(agent, "Work.", key="b")
        assert run.state is RunState.RETRYABLE
    assert (await durably_app.get("a")).state is RunState.RETRYABLE


@ON_SQLITE
async def test_inline_leaves_a_run_of_the_callers_transaction_for_drain(
    durably_app: Durably, durably_url: str
) -> None:
    agent = Agent(ScriptedModel("Done."), name="clerk")
    connection = sqlite3.connect(durably_url.removeprefix("sqlite:///"), isolation_level=None)
    async with inline(durably_app):
        connection.execute("BEGIN IMMEDIATE")
        run = await durably_app.enqueue(agent, "Work.", key="a", conn=connection)
        connection.execute("COMMIT")
    connection.close()
    assert (await run.refresh()).state is RunState.AVAILABLE
    assert (await drain(durably_app)).attempts == 1


@ON_SQLITE
async def test_a_script_answers_by_the_history_and_says_when_it_is_over(
    durably_app: Durably,
) -> None:
    model = ScriptedModel(
        ["Let me look.", call("look", at="a"), call("look", at="b")],
        RuntimeError("once"),
        lambda messages, info: f"{', '.join(tool_texts(messages))} of {len(info.function_tools)}",
    )
    agent = Agent(model, name="scout")

    @agent.tool_plain(metadata=effects.READ)
    async def look(at: str) -> str:
        if at == "c":
            raise ModelRetry("no")
        return at.upper()

    durably_app.register(agent, retry=AT_ONCE)
    run = await durably_app.enqueue(agent, "Look.", key="k")
    assert (await drain(durably_app)).attempts == 2
    assert (await run.refresh()).output() == "A, B of 1"
    assert (model.requests, [len(messages) for messages in model.seen]) == (3, [1, 3, 3])
    assert [part.tool_call_id for part in model.seen[1][1].parts[1:]] == ["call_0", "call_1"]  # type: ignore[union-attr]

    short = Agent(ScriptedModel(call("look", at="c"), name="short"), name="short")
    short.tool_plain(metadata=effects.READ)(look)
    durably_app.register(short, max_attempts=1)
    await durably_app.enqueue(short, "Look.", key="s")
    with pytest.raises(AssertionError, match="'short' has 1 responses, and is asked for one more"):
        await drain(durably_app, raise_errors=True)


@ON_SQLITE
async def test_a_scripted_stream_is_shown_and_breaks_once(durably_app: Durably) -> None:
    model = ScriptedModel(call("look"), chunks("Good ", "mor", ConnectionError("cut"), "ning."))
    agent = Agent(model, name="greeter")

    @agent.tool_plain(metadata=effects.READ)
    async def look() -> str:
        return "sunny"

    durably_app.register(agent, stream=True, retry=AT_ONCE)
    run = await durably_app.enqueue(agent, "Greet.", key="k")
    drained = await drain(durably_app)
    assert [str(failure) for failure in drained.failures] == ["cut"]
    assert (await run.refresh()).output() == "Good morning."
