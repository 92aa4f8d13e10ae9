"""A first durable agent. Run it, interrupt it, run it again: it goes on where it was.

No key, no network: pass a model such as openai:gpt-4o to ask a real one.
"""

import asyncio
import sys

from pydantic_ai import Agent

from durably import Durably, effects

agent = Agent(sys.argv[1] if len(sys.argv) > 1 else "test", name="support")


@agent.tool_plain(metadata=effects.READ)
def find_order(number: int) -> str:
    """Where an order is."""
    return f"Order {number} was shipped on Monday."


async def main() -> None:
    async with Durably("sqlite:///agents.db") as app:
        print(await app.run(agent, "Where is order 42?", key="support-42"))


asyncio.run(main())
