"""Tools that act and never come back, one for each policy, async and in a thread.

Owns what they do, and what becomes of a run whose attempts are all ended from outside; what ends
them is `test_hanging_tools`'s.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_ai import Agent

from crash.children import begin, serve
from crash.jobs import GATE_SECONDS
from crash.scenarios import write_booking
from crash.world import World
from durably import Durably, current_call, effects
from matrix.faulty_tools import MAX_ATTEMPTS, NOW, POLICIES, neighbour_for, paid_script

TRANSACTIONAL = "TRANSACTIONAL"
OTHERS = [policy for policy in POLICIES if policy != TRANSACTIONAL]


@dataclass(frozen=True)
class Hanging:
    """A tool that hangs.

    Attributes:
        in_thread: it is sync: a thread cannot be ended, and so goes on hanging.
    """

    policy: str
    in_thread: bool

    @property
    def key(self) -> str:
        return f"{self.policy}, {'in a thread' if self.in_thread else 'async'}"


@dataclass(frozen=True)
class Expected:
    """What becomes of a run whose tool acted in each attempt, and hung.

    Attributes:
        state: of the run.
        effect: the state of the call's effect; None: nothing is recorded.
        times: how often the tool acted for good.
        ended: how many attempts were ended from outside.
    """

    state: str
    effect: str | None
    times: int
    ended: int


def expected(policy: str, *, always: bool) -> Expected:
    """What comes after attempts that were ended.

    Args:
        always: it hangs in every attempt, until none are left; else in the first alone.
    """
    attempts = MAX_ATTEMPTS if always else 1
    match policy:
        case "once, ask":
            return Expected("suspended", "in_doubt", 1, 1)
        case "once, tell":
            return Expected("completed", "in_doubt", 1, 1)
        case "once, reconcile":
            return Expected("completed", "done", 1, 1)
        case "once, retry" if always:
            return Expected("discarded", "in_doubt", attempts, attempts)
        case "TRANSACTIONAL":
            return Expected(
                *(("discarded", None, 0) if always else ("completed", "done", 1)), attempts
            )
        case _ if always:
            return Expected("discarded", None, attempts, attempts)
        case _:
            return Expected("completed", "done", 2, 1)


def agent_for(world: World, hanging: Hanging) -> Agent[None, str]:
    """One that acts well, then hangs once it has acted, then has its say."""
    agent = Agent(paid_script(world, hanging.key, "well", "act"), name=hanging.key)
    books = hanging.policy == TRANSACTIONAL

    @agent.tool_plain(metadata=effects.once())
    async def well() -> str:
        return world.act()

    def arrive() -> None:
        world.record("hangs", run=hanging.key, attempt=current_call().attempt)

    async def act() -> str:
        if not books:
            done = world.act()
            await _hang(world, arrive)
            return done
        call = current_call()
        async with call.transaction() as connection:
            booked = write_booking(connection, call.idempotency_key)
            if asyncio.iscoroutine(booked):
                await booked
            await _hang(world, arrive)
        return "booked"

    def act_in_thread() -> str:
        if not books:
            done = world.act()
            _hang_in_thread(world, arrive)
            return done
        call = current_call()
        with call.transaction() as connection:
            write_booking(connection, call.idempotency_key)
            _hang_in_thread(world, arrive)
        return "booked"

    tool = act_in_thread if hanging.in_thread else act
    agent.tool_plain(tool, name="act", metadata=POLICIES[hanging.policy])
    return agent


async def _hang(world: World, arrive: Any) -> None:
    if not world.gate_is_open():
        arrive()
    while not world.gate_is_open():
        await asyncio.sleep(0.02)


def _hang_in_thread(world: World, arrive: Any) -> None:
    if not world.gate_is_open():
        arrive()
    deadline = time.monotonic() + GATE_SECONDS
    while not world.gate_is_open() and time.monotonic() < deadline:
        time.sleep(0.02)


def app_for(
    world: World, tools: list[Hanging], timeout: float | None = None
) -> tuple[Durably, dict[Hanging, Agent[None, str]]]:
    os.environ["MATRIX_WORLD"] = str(world.folder)
    app = Durably(world.url)
    agents = {hanging: agent_for(world, hanging) for hanging in tools}
    for agent in agents.values():
        app.register(agent, retry=NOW, max_attempts=MAX_ATTEMPTS, timeout=timeout)
    app.register(neighbour_for(world))
    return app, agents


def worker(
    folder: Path, tools: list[Hanging], timeout: float | None = None, **options: Any
) -> None:
    """A worker for such runs, until SIGTERM.

    Args:
        timeout: how long an attempt may take.
    """
    begin(folder, "worker")
    world = World(folder)
    app, _ = app_for(world, tools, timeout)
    asyncio.run(serve(world, app, **options))
