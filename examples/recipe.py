"""The recipe "wrap an agent run in a job", with durably: a support agent with one tool.

No key, no network: pass a model such as openai:gpt-4o to ask a real one.
"""

import asyncio
import sys

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from durably import Durably, current_call, effects, history

model = sys.argv[1] if len(sys.argv) > 1 else TestModel(custom_output_text="It is on its way.")
agent = Agent(model, name="support", instructions="You help customers of a shop, briefly.")


@agent.tool_plain(metadata=effects.once(on_doubt="tell"))
def notify_courier(order: int) -> str:
    """Ask the courier to hurry; at most once, whatever crashes."""
    return f"courier told about order {order}, reference {current_call().idempotency_key}"


async def main() -> None:
    async with Durably("sqlite:///recipe.db", agents=[agent]) as app:
        # The unique key is the lock and the checkpoint: run this again, and nothing runs twice.
        run = await app.enqueue(agent, "Please hurry up order 42.", key="support-42")
        async with app.worker(queues={"agents": 20}):
            print(await run.result())
        messages = await run.history()

    first_two = messages[:2]
    text = history.to_json(first_two)
    print(text)
    print("round trip:", history.from_json(text) == first_two)


asyncio.run(main())
