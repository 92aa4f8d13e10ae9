"""The next version of an application: its agent has other tools, another prompt and another model.

Owns what has changed; the version before is `crash.scenarios`'s `MIXED`.
"""

from __future__ import annotations

from typing import Literal

from pydantic_ai import Agent

from crash.scenarios import MIXED, PRICES, TOOLS, scripted
from crash.world import World
from durably import Durably, effects

NAME = "script of the next version"

type OnChange = Literal["continue", "suspend", "discard"]


def next_version(world: World, on_change: OnChange) -> Durably:
    """The same calls are to be made: what happens to each can be compared."""
    model = scripted(world, MIXED.responses, NAME)
    agent = Agent(model, name="clerk", instructions="Be brief.")
    for tool, policy in MIXED.policies.items():
        TOOLS[policy](agent, world, tool)

    @agent.tool_plain(metadata=effects.READ)
    def weigh(kilograms: float) -> str:
        return f"{kilograms} kg"

    app = Durably(world.url, prices={**PRICES, NAME: PRICES["script"]})
    app.register(agent, on_change=on_change)
    return app
