"""Runs for the pages' tests: an agent whose prompt says which tools it calls; the test works on it.

Owns the agent; the ledger is a stage's.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Budget, Durably, RetryPolicy, Run, effects, human

QUEUE = "desk"

ADDRESS = {
    "type": "object",
    "properties": {
        "town": {"type": "string", "description": "Where it goes"},
        "parcels": {"type": "integer", "minimum": 1},
        "express": {"type": "boolean"},
    },
    "required": ["town", "parcels", "express"],
}


def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    (prompt,) = [part.content for part in messages[0].parts if part.part_kind == "user-prompt"]
    calls: list[list[Any]] = json.loads(str(prompt))
    done = sum(isinstance(message, ModelResponse) for message in messages)
    if done == len(calls):
        return ModelResponse(parts=[TextPart("done")])
    tool, args = calls[done]
    if tool == "break":
        raise RuntimeError(args)
    return ModelResponse(parts=[ToolCallPart(tool, args, tool_call_id="call_0")])


class Desk:
    """A ledger with a clerk, and what the clerk really did."""

    def __init__(self, url: str) -> None:
        self.did: list[Any] = []
        self.app = Durably(url)
        self.clerk = self._agent("clerk")
        self.app.register(
            self.clerk, queue=QUEUE, max_attempts=1, retry=RetryPolicy(initial_seconds=0)
        )

    def _agent(self, name: str) -> Agent[None, str]:
        model = FunctionModel(_answer, model_name="scripted")
        agent = Agent(model, name=name, toolsets=[human.toolset()])

        @agent.tool_plain(metadata=effects.once(approve=True))
        def refund(order: str, cents: int) -> str:
            self.did.append((order, cents))
            return f"refunded {cents}"

        @agent.tool_plain(metadata=effects.once())
        def charge(cents: int) -> str:
            raise RuntimeError("the connection broke")

        return agent

    async def run(self, key: str, *calls: tuple[str, Any], **options: Any) -> Run[Any]:
        """A run, as far as it gets by itself."""
        prompt = json.dumps(calls)
        run = await self.app.enqueue("clerk", prompt, key=key, queue=QUEUE, **options)
        await self.work()
        return await run.refresh()

    async def work(self) -> None:
        await self.app.drain({QUEUE: 5})

    async def broke(self, key: str) -> Run[Any]:
        """A run that waits because its budget is used up."""
        return await self.run(key, ("charge", {"cents": 1}), budget=Budget(requests=0))
