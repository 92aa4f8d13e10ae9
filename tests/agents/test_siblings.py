"""Parallel calls: one that fails does not take away what another one has done."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from pydantic_ai import Agent, ModelRetry

from durably import Durably, NotDone, effects
from support.scripted import NOW, Script, call


def paid() -> str:
    return "paid"


def refused() -> str:
    raise ModelRetry("the card is not known")


def not_sent() -> str:
    raise NotDone("the line was busy")


def agent_with(log: list[str], ending: Callable[[], str], *, threaded: bool) -> Agent:
    """A charge that is under way while a reading call of the same batch fails, once."""
    agent = Agent(Script([call("charge", "c0"), call("look", "c1")], "done").model, name="support")
    started, failed = asyncio.Event(), threading.Event()

    def work() -> str:
        log.append("charge")
        return ending()

    if threaded:

        @agent.tool_plain(metadata=effects.once())
        def charge() -> str:
            loop.call_soon_threadsafe(started.set)
            assert failed.wait(60)
            return work()
    else:

        @agent.tool_plain(metadata=effects.once())
        async def charge() -> str:
            started.set()
            await asyncio.to_thread(failed.wait, 60)
            return work()

    loop = asyncio.get_running_loop()

    @agent.tool_plain(metadata=effects.READ)
    async def look() -> str:
        await started.wait()
        if failed.is_set():
            return "seen"
        loop.call_later(0.05, failed.set)
        raise ConnectionError("flaky")

    return agent


@pytest.mark.parametrize("threaded", [True, False], ids=["thread", "async"])
@pytest.mark.parametrize(
    ("ending", "charges", "state"),
    [(paid, 1, "done"), (refused, 1, "failed"), (not_sent, 2, None)],
)
async def test_a_once_tool_finishes_although_a_parallel_call_failed(
    app: Durably,
    log: list[str],
    ending: Callable[[], str],
    charges: int,
    state: str | None,
    threaded: bool,
) -> None:
    times = iter([ending, paid])
    agent = agent_with(log, lambda: next(times)(), threaded=threaded)
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).output() == "done"
    assert len(log) == charges
    recorded = {effect.tool_name: (effect.state, effect.attempt) for effect in await run.effects()}
    assert recorded["charge"] == ((state, 1) if state else ("done", 2))
