"""What tools and models do that would end their worker, or be tried for ever: it counts, and ends.

Each of these went wrong once; the matrix (tests/matrix) has them in worker processes.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import AgentStreamEvent, ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo, FunctionModel

import durably
from durably import Durably, RunDiscarded, RunState, current_call, effects
from durably.execution.call import Call
from support.databases import ON_SQLITE
from support.scripted import NOW, Script, call

TWICE: dict[str, Any] = {"retry": NOW, "max_attempts": 2}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    @property
    def response(self) -> object:
        raise RuntimeError("no response")


@pytest.mark.parametrize(
    "error", [Unspeakable(), ValueError("half a character: \ud800"), ValueError("x" * 10**7)]
)
async def test_nothing_is_lost_a_failure_that_cannot_be_written_counts(
    app: Durably, error: Exception
) -> None:
    agent = Agent(Script(error).model, name="support")
    app.register(agent, **TWICE)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    assert (run.state, run.record.failures) == (RunState.DISCARDED, 2)
    assert str(run.record.error).startswith(type(error).__name__)
    assert len(str(run.record.error)) < 11_000


@ON_SQLITE
async def test_nothing_is_lost_an_end_that_the_ledger_refuses_counts(
    app: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: tried for ever, it would show nowhere."""

    def refuse(*_: object, **__: object) -> Any:
        raise ValueError("refused")

    monkeypatch.setattr("durably.execution.executor.attempts.complete", refuse)
    agent = Agent(Script("done").model, name="support")
    app.register(agent, **TWICE)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    assert (run.state, run.record.failures) == (RunState.DISCARDED, 2)
    assert run.record.error == "ValueError: refused"


@pytest.mark.parametrize("status", [3, 404, "good-bye"])
async def test_health_a_model_that_exits_fails_its_attempt(app: Durably, status: int | str) -> None:
    def leave(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        sys.exit(status)

    agent = Agent(FunctionModel(leave), name="support")
    app.register(agent, **TWICE)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    # An exit code is no HTTP status: 404 would be permanent.
    assert (run.state, run.record.failures) == (RunState.DISCARDED, 2)
    assert f"raised SystemExit: {status}" in str(run.record.error)


def _exits_in(place: str) -> Agent[None, str]:
    """An agent whose code exits there."""

    def leave(here: str) -> None:
        if here == place:
            sys.exit(3)

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        leave("a stream that begins")
        yield "one, "
        leave("a stream in the middle")
        yield "two"

    class Hooks(AbstractCapability[None]):
        async def before_run(self, ctx: RunContext[None]) -> None:
            leave("a hook before the run")

        async def wrap_run_event_stream(
            self, ctx: RunContext[None], *, stream: AsyncIterable[AgentStreamEvent]
        ) -> AsyncIterable[AgentStreamEvent]:
            async for event in stream:
                leave("a hook on events")
                yield event

    agent = Agent(FunctionModel(stream_function=stream), name="support", capabilities=[Hooks()])
    agent.instructions(lambda: leave("instructions"))
    return agent


@pytest.mark.parametrize(
    "place",
    [
        "a stream that begins",
        "a stream in the middle",
        "a hook before the run",
        "a hook on events",
        "instructions",
    ],
)
def test_health_an_agent_that_exits_anywhere_leaves_its_worker_alone(
    place: str, tmp_path: Path
) -> None:
    """Pydantic-ai runs it in tasks of its own, out of which asyncio lets SystemExit: into the loop.

    In a loop of its own, since it would end that of the tests.
    """
    leaves = _exits_in(place)
    stays = Agent(Script("done").model, name="stays")

    async def both() -> None:
        async with Durably(f"sqlite:///{tmp_path}/ledger.db") as app:
            app.register(leaves, stream=True, **TWICE)
            app.register(stays)
            async with app.worker(queues={"agents": 1}):
                run = await app.enqueue(leaves, "hi")
                other = await app.enqueue(stays, "hi")
                assert await other.result(timeout=300) == "done"
                with pytest.raises(RunDiscarded, match="raised SystemExit: 3"):
                    await run.result(timeout=300)
            await run.refresh()
            assert (run.state, run.record.failures) == (RunState.DISCARDED, 2)

    asyncio.run(both())


@ON_SQLITE
async def test_no_silent_repeat_reconcile_is_asked_about_the_arguments_of_the_call(
    app: Durably,
) -> None:
    """A tool may do with its arguments what it likes: they are its own."""
    asked: list[Any] = []

    def find(ctx: object, call: Call) -> effects.Done:
        asked.append(call.args)
        return effects.Done("found")

    script = Script([call("pay", items=[1, 2], any={"a": [1]})], "done")
    agent = Agent(script.model, name="support")

    @agent.tool_plain(metadata=effects.once(reconcile=find))
    def pay(items: list[int], any: Any) -> str:
        items.pop()
        any["a"].append(2)
        current_call().args["items"].append(3)
        raise RuntimeError("no answer")

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert asked == [{"items": [1, 2], "any": {"a": [1]}}]
    (made,) = script.seen[-1][1].parts
    assert getattr(made, "args", None) == {"items": [1, 2], "any": {"a": [1]}}


@ON_SQLITE
async def test_deploys_are_boring_steps_in_a_task_group_hand_back(app: Durably) -> None:
    """What a task group makes of the end of an attempt is still that end."""
    agent = Agent(Script([call("work")], "done").model, name="support")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def first() -> int:
        begun.set()
        await go_on.wait()
        return 1

    @agent.tool_plain(metadata=effects.WAITS)
    async def work() -> str:
        async def then() -> None:
            await go_on.wait()
            await durably.step("second", lambda: 2, effect=effects.READ)

        async with asyncio.TaskGroup() as group:
            group.create_task(durably.step("first", first, effect=effects.READ))
            group.create_task(then())
        return "worked"

    app.register(agent, **TWICE)
    run = await app.enqueue(agent, "hi")
    async with app.worker() as worker:
        await begun.wait()
        leaving = asyncio.create_task(worker.stop())
        while not worker.leaving:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        go_on.set()
        await leaving
    await run.refresh()
    assert (run.state, run.record.failures) == (RunState.AVAILABLE, 0)


async def test_health_steps_that_block_threads_hold_up_no_other_run(app: Durably) -> None:
    """There are more of them than the event loop has threads: it looks up hosts in them."""
    gate = threading.Event()
    count = (os.cpu_count() or 1) + 5
    slow = Agent(Script([call("wait")], "done").model, name="slow")
    quick = Agent(Script([call("book")], "done").model, name="quick")

    @slow.tool_plain(metadata=effects.WAITS)
    async def wait() -> bool:
        return await durably.step("wait", gate.wait, 600, effect=effects.READ)

    @quick.tool_plain(metadata=effects.TRANSACTIONAL)
    async def book() -> str:
        async with current_call().transaction():
            return "booked"

    app.register(slow)
    app.register(quick)
    waiting = [await app.enqueue(slow, "hi") for _ in range(count)]
    try:
        async with app.worker(queues={"agents": count + 1}):
            while sum(t.name.startswith("AnyIO") for t in threading.enumerate()) < count:
                await asyncio.sleep(0.01)
            run = await app.enqueue(quick, "hi")
            assert await run.result(timeout=300) == "done"
            gate.set()
            for run in waiting:
                await run.result(timeout=300)
    finally:
        gate.set()
