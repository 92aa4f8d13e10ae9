"""What workers do while their database is being broken: runs with a tool for each effect policy.

Every tool and every model request says in the world's file, with fsync, that it happened.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import secrets
import time
from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from crash.scenarios import write_booking
from crash.world import World, receipt
from durably import Durably, NotDone, current_call, effects
from durably.execution.call import Call

RESPONSES: tuple[list[str] | str, ...] = (
    ["look", "sync", "charge"],
    ["book", "ship", "mail"],
    ["reserve", "call"],
    "All is well.",
)

AT_MOST_ONCE = ("charge", "ship", "mail", "call", "book", "reserve")
"""Tools whose effect happens once, whatever happens to the database."""

EVERY_TOOL = frozenset({"look", "sync", *AT_MOST_ONCE})

SLOW_SECONDS = (0.0, 0.06)
"""How long a tool or a model takes: drawn between these."""


def app(world: World) -> Durably:
    """The application, as every worker and client of the site has it."""
    agent = Agent(_model(world), name="clerk")

    @agent.tool_plain(metadata=effects.READ)
    def look() -> str:
        return _act_in_thread(world)

    @agent.tool_plain(metadata=effects.IDEMPOTENT)
    async def sync() -> str:
        return await _act(world)

    @agent.tool_plain(metadata=effects.once(on_doubt="ask"))
    def charge() -> str:
        return _act_in_thread(world)

    @agent.tool_plain(metadata=effects.once(on_doubt="ask"))
    async def mail() -> str:
        return await _act(world)

    @agent.tool_plain(metadata=effects.once(on_doubt="ask"))
    async def call() -> str:
        return await _act(world)

    def find(ctx: RunContext[None], call: Call) -> effects.Done:
        if world.effects()[call.idempotency_key] == 0:
            raise NotDone
        return effects.Done(receipt(call.tool_name, call.idempotency_key))

    @agent.tool_plain(metadata=effects.once(reconcile=find))
    async def ship() -> str:
        return await _act(world)

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    def book() -> str:
        call = current_call()
        with call.transaction() as connection:
            write_booking(connection, call.idempotency_key)
            time.sleep(_some_seconds())
        return receipt(call.tool_name, call.idempotency_key)

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    async def reserve() -> str:
        call = current_call()
        async with call.transaction() as connection:
            written = write_booking(connection, call.idempotency_key)
            if inspect.isawaitable(written):
                await written
            await asyncio.sleep(_some_seconds())
        return receipt(call.tool_name, call.idempotency_key)

    return Durably(world.url, agents=[agent, _sleeper(world)])


def _sleeper(world: World) -> Agent[None, str]:
    """Acts once, after as many seconds as it is asked for."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse([TextPart("Well slept.")])
        return ModelResponse([ToolCallPart("sleep", {"seconds": float(_prompt(messages))})])

    agent = Agent(FunctionModel(answer, model_name="script"), name="sleeper")

    @agent.tool_plain(metadata=effects.once(on_doubt="ask"))
    async def sleep(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return world.act()

    return agent


def _model(world: World) -> FunctionModel:
    """Answers by how far the history is; each answer can be told from every other."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        number = sum(isinstance(message, ModelResponse) for message in messages)
        await asyncio.sleep(_some_seconds())
        nonce = secrets.token_hex(8)
        world.record("paid", run=_prompt(messages), response=number, nonce=nonce)
        planned = RESPONSES[number]
        parts: list[Any] = (
            [TextPart(planned)]
            if isinstance(planned, str)
            else [ToolCallPart(tool, {}, f"call_{i}") for i, tool in enumerate(planned)]
        )
        return ModelResponse(parts, provider_response_id=nonce)

    return FunctionModel(answer, model_name="script")


def _prompt(messages: list[ModelMessage]) -> str:
    (prompt,) = [part.content for part in messages[0].parts if isinstance(part, UserPromptPart)]
    assert isinstance(prompt, str)
    return prompt


async def _act(world: World) -> str:
    await asyncio.sleep(_some_seconds())
    return world.act()


def _act_in_thread(world: World) -> str:
    time.sleep(_some_seconds())
    return world.act()


def _some_seconds() -> float:
    return random.uniform(*SLOW_SECONDS)
