"""Runs whose model is behind a provider that fails: agents, and the worker that executes them.

Owns the agents, one for each fault and each moment; the provider is `provider`'s.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from crash.children import begin, serve
from crash.world import World
from durably import Durably, effects
from matrix.faulty_tools import NOW

MAX_ATTEMPTS = 3

HANG_SECONDS = 20.0
"""How long an attempt may take of a run whose model hangs once."""


def agent_for(world: World, url: str, name: str) -> Agent[None, str]:
    """One whose model is ``name`` at the provider: see `matrix.provider.Provider`."""
    # Its own retries would hide what is to be seen.
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)
    model = OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))
    agent = Agent(model, name=name, retries=2)

    @agent.tool_plain(metadata=effects.once())
    async def charge(cents: int) -> str:
        return world.act()

    @agent.tool_plain(metadata=effects.once())
    async def mail(cents: int) -> str:
        return world.act()

    return agent


def app_for(
    world: World, url: str, names: list[str]
) -> tuple[Durably, dict[str, Agent[None, str]]]:
    app = Durably(world.url)
    agents = {name: agent_for(world, url, name) for name in names}
    for name, agent in agents.items():
        hangs_once = name.startswith("hangs") and not name.endswith("!")
        app.register(
            agent,
            timeout=HANG_SECONDS if hangs_once else None,
            stream=name.startswith("broken stream"),
            retry=NOW,
            max_attempts=MAX_ATTEMPTS,
        )
    return app, agents


def worker(folder: Path, url: str, names: list[str], **options: Any) -> None:
    """A worker for such runs, until SIGTERM."""
    begin(folder, "worker")
    world = World(folder)
    app, _ = app_for(world, url, names)
    asyncio.run(serve(world, app, **options))
