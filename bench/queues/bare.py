"""What a bare ``agent.run`` costs with the same agent: nothing durable can be quicker."""

from __future__ import annotations

import asyncio
import time

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from queues.databases import Databases
from queues.figures import Figures
from queues.sizes import Sizes

WARM_UP, RUNS = 20, 100


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart("ok")])


def measure(databases: Databases, figures: Figures, sizes: Sizes) -> None:
    agent = Agent(FunctionModel(answer), name="noop")
    values = [asyncio.run(_cpu_ms(agent)) for _ in range(sizes.turns)]
    figures.add("bare agent.run, CPU", "pydantic-ai", "none", "ms", values)


async def _cpu_ms(agent: Agent) -> float:
    for _ in range(WARM_UP):
        await agent.run("hi")
    began = time.process_time()
    for _ in range(RUNS):
        await agent.run("hi")
    return 1000 * (time.process_time() - began) / RUNS
