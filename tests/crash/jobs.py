"""What the workers of these tests do: agents whose tools take long, wait, or kill the process.

Owns the applications by name; a worker process is told only the name.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel

from crash.scenarios import SCENARIOS, scripted, write_booking
from crash.world import World
from durably import Durably, current_call, effects

type Job = Callable[[World], tuple[Durably, Agent[None, str]]]

GATE_SECONDS = 300


def _app(world: World, agent: Agent[None, str], **options: Any) -> tuple[Durably, Agent[None, str]]:
    app = Durably(world.url)
    app.register(agent, **options)
    return app, agent


def _agent(world: World, *tools: str) -> Agent[None, str]:
    """An agent that calls each tool in a response of its own, and answers."""
    model = scripted(world, (*([tool] for tool in tools), "All is well."))
    return Agent(model, name="clerk")


# --- tools that take several leases


def _long(kind: str, world: World) -> tuple[Durably, Agent[None, str]]:
    agent = _agent(world, "act")
    seconds = float((world.folder / "seconds").read_text())

    async def sleeping() -> str:
        await asyncio.sleep(seconds)
        return world.act()

    def blocking_a_thread() -> str:
        time.sleep(seconds)
        return world.act()

    async def blocking_the_loop() -> str:
        time.sleep(seconds)  # noqa: ASYNC251 - the mistake that must do no harm
        return world.act()

    tools = {"async": sleeping, "in a thread": blocking_a_thread, "on the loop": blocking_the_loop}
    agent.tool_plain(tools[kind], name="act", metadata=effects.once())
    return _app(world, agent)


# --- tools that wait until the test opens the gate


def _gated(kind: str, policy: dict[str, Any], world: World) -> tuple[Durably, Agent[None, str]]:
    agent = _agent(world, "wait", "act")

    @agent.tool_plain(metadata=effects.once())
    async def act() -> str:
        return world.act()

    async def waiting() -> str:
        _arrive(world)
        while not world.gate_is_open():
            await asyncio.sleep(0.02)
        return world.act()

    def waiting_in_a_thread() -> str:
        _arrive(world)
        deadline = time.monotonic() + GATE_SECONDS
        while not world.gate_is_open() and time.monotonic() < deadline:
            time.sleep(0.02)
        return world.act()

    tools = {"async": waiting, "in a thread": waiting_in_a_thread}
    agent.tool_plain(tools[kind], name="wait", metadata=policy)
    return _app(world, agent)


def _arrive(world: World) -> None:
    world.record("at the gate", attempt=current_call().attempt)


def _booking(world: World) -> tuple[Durably, Agent[None, str]]:
    """A transactional tool that writes in its thread until it is stopped, or the gate opens."""
    agent = _agent(world, "book")

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    def book() -> str:
        call = current_call()
        with call.transaction() as connection:
            write_booking(connection, call.idempotency_key)
            _arrive(world)
            deadline = time.monotonic() + GATE_SECONDS
            while not world.gate_is_open() and time.monotonic() < deadline:
                connection.execute("INSERT INTO bookings VALUES ('spare')")
                connection.execute("DELETE FROM bookings WHERE key = 'spare'")
        return "booked"

    return _app(world, agent)


# --- a message that is made until the gate is opened


def _speaking(world: World) -> tuple[Durably, Agent[None, str]]:
    async def speak(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        for word in ("Half", " a"):
            yield word
        world.record("at the gate", pid=os.getpid())
        while not world.gate_is_open():
            await asyncio.sleep(0.02)
        yield " message is none."

    agent = Agent(FunctionModel(stream_function=speak, model_name="script"), name="clerk")
    return _app(world, agent, stream=True)


# --- a run that kills its worker, each time


def _deadly(world: World) -> tuple[Durably, Agent[None, str]]:
    agent = _agent(world, "act", "die")

    @agent.tool_plain(metadata=effects.once())
    async def act() -> str:
        return world.act()

    @agent.tool_plain(metadata=effects.READ)
    async def die() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "dead"

    return _app(world, agent, max_attempts=3)


JOBS: dict[str, Job] = {
    **{name: scenario.app for name, scenario in SCENARIOS.items()},
    **{f"long {kind}": partial(_long, kind) for kind in ("async", "in a thread", "on the loop")},
    **{f"gated {kind}": partial(_gated, kind, effects.READ) for kind in ("async", "in a thread")},
    "gated once": partial(_gated, "async", effects.once()),
    "booking": _booking,
    "speaking": _speaking,
    "deadly": _deadly,
}
