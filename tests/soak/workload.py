"""What the soak's workers do: one agent with a tool for each policy and wait, and short scripts.

Owns the agent, its scripts and their mix; who enqueues them is `client`, what must hold `audit`.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

import durably
from crash.scenarios import write_booking
from crash.world import World, receipt
from durably import Budget, Durably, NotDone, Price, RetryPolicy, current_call, effects, human
from durably.agents.registry import RunInfo
from durably.execution.call import Call
from soak.outside import Outside

type Responses = tuple[list[str] | str, ...]

DONE = "All is well with {key}, {nonce}. "
"""What every run that completes says in the end."""

SCRIPTS: dict[str, Responses] = {
    "policies": (["look", "sync", "charge", "mail"], ["book", "ship", "call", "label"], DONE),
    "charge": (["charge"], DONE),
    "ship": (["ship", "look"], DONE),
    "call": (["call"], DONE),
    "book": (["book"], ["reserve"], DONE),
    "pay": (["pay", "look"], DONE),
    "question": (["ask_person"], DONE),
    "work": (["work"], DONE),
    "listen": (["listen", "charge"], DONE),
    "delegate": (["delegate"], DONE),
    "streamed": (["look", "charge"], "One word. " * 6 + DONE),
    "hiccup": (["charge"], ["hiccup"], DONE),
    "poor": (["look"], ["charge"], DONE),
    "ordered": (["book"], DONE),
    "doomed": (["charge"], ["work"], ["mail"], ["book"], DONE),
    "parked": (["charge"], ["park"], DONE),
    "note": (DONE,),
}
"""What the model answers: names of tools to call, or text; by how far the run's history is."""

MIX = {
    "policies": 4, "charge": 4, "ship": 4, "call": 2, "book": 3, "pay": 2, "question": 1, "work": 3,
    "listen": 2, "delegate": 3, "streamed": 3, "hiccup": 1, "poor": 1, "ordered": 2, "doomed": 2,
    "parked": 0.1,
}  # fmt: skip
"""How often each is enqueued, compared with the others; a note steers runs of a thread."""

POLICIES = {
    "look": "read", "sync": "idempotent", "hiccup": "idempotent", "charge": "once, ask",
    "mail": "once, ask", "pay": "once, approved", "call": "once, tell", "label": "once, retry",
    "ship": "once, reconcile", "book": "transactional", "reserve": "transactional",
    "work/ask": "once, ask", "work/book": "transactional", "work/find": "once, reconcile",
    "work/sync": "idempotent", "delegate/before": "once, ask",
}  # fmt: skip
"""What each tool that acts was declared as; a step is named after its tool."""

TAG = "counted"
TAG_BUDGET = Budget(requests=10**6, tool_calls=10**6, usd=10**6)
"""What all runs share: enough, so that it only counts what they spend."""

PRICES = {"script": Price(input=1, output=3)}

POOR = Budget(requests=1)
"""Of a run that a person has to give more."""

SLEEP_SECONDS = 0.3
LONG_CHANCE, LONG_SECONDS = 0.02, 4.0
"""A few tools outlast a lease."""

_running: ContextVar[RunInfo] = ContextVar("soak_running")


@dataclass(frozen=True)
class Soaked:
    """A site to soak: where its ledger and its records are.

    Attributes:
        world: facts that concern no run: who works, what was acknowledged.
        outside: what tools did, and what was paid.
    """

    world: World
    outside: Outside

    @classmethod
    def at(cls, world: World) -> Soaked:
        return cls(world, Outside(world.folder / "outside"))


def app(site: Soaked) -> Durably:
    """The application, as every process has it."""
    app = Durably(site.world.url, prices=PRICES)
    app.register(
        _agent(site.outside),
        deps=_note_who_runs,
        # Whether a run survives a hundred crashes is no question here.
        max_attempts=10_000,
        retry=RetryPolicy(initial_seconds=0.1, max_seconds=0.5),
    )
    return app


def prompt(scenario: str, key: str) -> str:
    return f"{scenario} {key}"


def child_of(key: str) -> str:
    return f"{key}-child"


def _note_who_runs(info: RunInfo) -> RunInfo:
    _running.set(info)
    return info


# --- the model


def _model(outside: Outside) -> FunctionModel:
    """Answers by how far the run's own history is; each answer can be told from every other."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        run = _running.get()
        scenario, number, saw = _place(messages, run.key)
        await asyncio.sleep(some_seconds())
        nonce = f"#{secrets.token_hex(8)}"
        outside.pay(run.key, run.attempt, number, nonce, saw)
        planned = SCRIPTS[scenario][number]
        if isinstance(planned, str):
            return ModelResponse([TextPart(planned.format(key=run.key, nonce=nonce))])
        # The ids start again in every response, as some providers' do.
        return ModelResponse([_call(tool, nonce, f"call_{i}") for i, tool in enumerate(planned)])

    async def tell(
        messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | DeltaToolCalls]:
        for index, part in enumerate((await answer(messages, info)).parts):
            if isinstance(part, TextPart):
                for piece in part.content.removesuffix(". ").split(". "):
                    yield f"{piece}. "
                    await asyncio.sleep(0.02)
            elif isinstance(part, ToolCallPart):
                args = part.args_as_json_str()
                call = DeltaToolCall(part.tool_name, args, tool_call_id=part.tool_call_id)
                yield {index: call}

    return FunctionModel(answer, stream_function=tell, model_name="script")


def _place(messages: list[ModelMessage], key: str) -> tuple[str, int, list[str]]:
    """What is played, how many responses of this run there are, and whose prompts the model saw."""
    scenario, number, saw = "", 0, list[str]()
    for message in messages:
        if isinstance(message, ModelResponse):
            number += bool(scenario)
            continue
        for text in prompts_in(message):
            name, _, owner = text.partition(" ")
            saw.append(owner)
            if owner == key:
                scenario, number = name, 0
    return scenario, number, saw


def prompts_in(message: ModelRequest) -> list[str]:
    """What users said in a request."""
    return [str(part.content) for part in message.parts if isinstance(part, UserPromptPart)]


def _call(tool: str, nonce: str, call_id: str) -> ToolCallPart:
    args = {"question" if tool == "ask_person" else "nonce": nonce}
    return ToolCallPart(tool, args, call_id)


# --- the tools


def _agent(outside: Outside) -> Agent[RunInfo, str]:
    agent = Agent(_model(outside), name="clerk", deps_type=RunInfo, toolsets=[human.toolset()])
    for add in (_simple_tools, _once_tools, _transactional_tools, _waiting_tools):
        add(agent, outside)
    return agent


def _simple_tools(agent: Agent[RunInfo, str], outside: Outside) -> None:
    @agent.tool_plain(metadata=effects.READ)
    def look(nonce: str) -> str:
        return _act_in_thread(outside, nonce)

    @agent.tool_plain(metadata=effects.IDEMPOTENT)
    async def sync(nonce: str) -> str:
        return await _act(outside, nonce)

    @agent.tool_plain(metadata=effects.IDEMPOTENT)
    async def hiccup(nonce: str) -> str:
        if outside.first_time(current_call().run_key, "hiccup"):
            raise RuntimeError("it hiccups the first time")
        return await _act(outside, nonce)


def _once_tools(agent: Agent[RunInfo, str], outside: Outside) -> None:
    def in_thread(nonce: str) -> str:
        return _act_in_thread(outside, nonce)

    async def on_loop(nonce: str) -> str:
        return await _act(outside, nonce)

    def find(ctx: RunContext[Any], call: Call) -> effects.Done:
        return _found(outside, call)

    tools: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("charge", in_thread, effects.once(on_doubt="ask")),
        ("mail", on_loop, effects.once(on_doubt="ask")),
        ("pay", on_loop, effects.once(approve=True)),
        ("call", on_loop, effects.once(on_doubt="tell")),
        ("label", in_thread, effects.once(on_doubt="retry")),
        ("ship", on_loop, effects.once(reconcile=find)),
    ]
    for name, work, metadata in tools:
        agent.tool_plain(work, name=name, metadata=metadata)


def _found(outside: Outside, call: Call) -> effects.Done:
    if not outside.find_call(call):
        raise NotDone
    return effects.Done(receipt(call.tool_name, call.idempotency_key))


def _transactional_tools(agent: Agent[RunInfo, str], outside: Outside) -> None:
    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    def book(nonce: str) -> str:
        call = current_call()
        with call.transaction() as connection:
            write_booking(connection, call.idempotency_key)
            time.sleep(random.uniform(0, 0.02))  # SQLite has one writer.
        return receipt(call.tool_name, call.idempotency_key)

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    async def reserve(nonce: str) -> str:
        return await _book()


async def _book() -> str:
    call = current_call()
    async with call.transaction() as connection:
        written = write_booking(connection, call.idempotency_key)
        if inspect.isawaitable(written):
            await written
        await asyncio.sleep(random.uniform(0, 0.02))
    return receipt(call.tool_name, call.idempotency_key)


def _waiting_tools(agent: Agent[RunInfo, str], outside: Outside) -> None:
    async def act(nonce: str) -> str:
        return await _act(outside, nonce)

    def find(ctx: RunContext[Any], call: Call) -> effects.Done:
        return _found(outside, call)

    @agent.tool_plain(metadata=effects.WAITS)
    async def work(nonce: str) -> list[Any]:
        """Steps under each policy, with a sleep between them."""
        return [
            await durably.step("ask", act, nonce),
            await durably.step("book", _book, effect=effects.TRANSACTIONAL),
            await durably.sleep(SLEEP_SECONDS),
            await durably.step("find", act, nonce, effect=effects.once(reconcile=find)),
            await durably.step("sync", act, nonce, effect=effects.IDEMPOTENT),
        ]

    @agent.tool_plain(metadata=effects.WAITS)
    async def listen(nonce: str) -> list[Any]:
        """Two signals, in the order in which they were sent."""
        return [await durably.wait_for_signal("part"), await durably.wait_for_signal("part")]

    @agent.tool_plain(metadata=effects.WAITS)
    async def delegate(nonce: str) -> list[str]:
        """A step, and a run of its own."""
        before = await durably.step("before", act, nonce)
        child = child_of(current_call().run_key)
        return [before, await durably.run_child("clerk", prompt("charge", child), key=child)]

    @agent.tool_plain(metadata=effects.WAITS)
    async def park(nonce: str) -> str:
        """Waits for what never comes."""
        return await durably.wait_for_signal("nobody sends it")


async def _act(outside: Outside, nonce: str) -> str:
    await asyncio.sleep(some_seconds())
    return outside.act(nonce)


def _act_in_thread(outside: Outside, nonce: str) -> str:
    time.sleep(some_seconds())
    return outside.act(nonce)


def some_seconds() -> float:
    """How long a tool or a model takes."""
    return LONG_SECONDS if random.random() < LONG_CHANCE else random.uniform(0, 0.05)
