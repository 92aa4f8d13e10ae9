"""A run in progress while its ledger's files may not grow: ``python full_disk.py LEDGER``.

Prints, as JSON, how often a write was refused and what became of the run.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Durably, LedgerUnavailable, boundaries, effects

REFUSALS = 3
"""After how many refused commits there is room again."""

commits = {"commit:before": 0, "commit:after": 0}
charges: list[str] = []
refused: list[str] = []
app = Durably(sys.argv[1])


def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
    if any(isinstance(message, ModelResponse) for message in messages):
        return ModelResponse(parts=[TextPart("charged")])
    return ModelResponse(parts=[ToolCallPart("charge", {}, "call_0")])


agent = Agent(FunctionModel(answer), name="cashier")


@agent.tool_plain(metadata=effects.once())
async def charge() -> str:
    """Happens in the world; from here on nothing can be written for a while."""
    charges.append("card")
    limit_files(size_of_log())
    try:
        await app.enqueue(agent, "another", key="other")
    except LedgerUnavailable as error:
        refused.append(str(error))
    return "receipt"


def size_of_log() -> int:
    return Path(f"{sys.argv[1]}-wal").stat().st_size


def limit_files(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def reached(name: str) -> None:
    if name in commits:
        commits[name] += 1
    if refusals() > REFUSALS:
        limit_files(resource.RLIM_INFINITY)


def refusals() -> int:
    return commits["commit:before"] - commits["commit:after"]


async def main() -> None:
    boundaries.observe(reached)
    async with app:
        run = await app.enqueue(agent, "charge me", key="r")
        async with asyncio.timeout(100):
            await app.drain()
        await run.refresh()
        told = {
            "refusals": refusals(),
            "refused": refused,
            "charges": len(charges),
            "output": run.output(),
            "attempts": len(await run.attempts()),
            "effects": [[e.state, e.result] for e in await run.effects()],
        }
    print(json.dumps(told))


asyncio.run(main())
