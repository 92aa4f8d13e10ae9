"""The runs that are crashed: one tool for each effect policy, and one run that mixes them all.

Owns the agents; what must hold after a crash is in `promises`.
"""

import asyncio
import inspect
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)

from crash.world import World, receipt
from durably import Budget, Durably, NotDone, Price, boundaries, current_call, effects
from durably.execution.call import Call

PROMPT = "Look after order 42."
KEY = "order-42"
TAG = "counted"
BUDGET = Budget(requests=1000, tool_calls=1000, usd=1000)
"""What runs with the tag share: enough, so that it only counts what they spend."""

PRICES = {"script": Price(input=1, output=3)}

type Responses = tuple[list[str] | str, ...]
"""What the model answers: names of tools to call, or text; by how far the history is.

A name with ``!`` is a call that the model makes again, better, after the tool has asked for it.
"""


@dataclass(frozen=True)
class Scenario:
    """A run to crash.

    Attributes:
        policies: what `promises` knows each tool by.
        responses: the model's script.
        stream: whether it is shown what the model says while it says it.
        sample: how the boundaries begin that a sample strikes at; all by default.
        shown: the policies in the words of the table in docs/reliability.md.
    """

    name: str
    policies: dict[str, str]
    responses: Responses
    stream: bool = False
    sample: tuple[str, ...] = ("",)
    shown: str = "all"

    def app(self, world: World) -> tuple[Durably, Agent[None, str]]:
        """The application, made anew in each process as a deployed one would be."""
        agent = Agent(scripted(world, self.responses), name="clerk")
        for tool, policy in self.policies.items():
            TOOLS[policy](agent, world, tool)
        app = Durably(world.url, prices=PRICES)
        app.register(agent, stream=self.stream)
        return app, agent


def scripted(world: World, responses: Responses, name: str = "script") -> FunctionModel:
    """A model that answers by how far the history is, and is paid for it."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        number = sum(isinstance(message, ModelResponse) for message in messages)
        world.pay(number)
        boundaries.reached("model:paid")
        response = responses[number]
        if isinstance(response, str):
            return ModelResponse(parts=[TextPart(response)])
        # The ids start again in every response, as some providers' do.
        return ModelResponse(parts=[_call(tool, f"call_{i}") for i, tool in enumerate(response)])

    async def tell(
        messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | DeltaToolCalls]:
        for index, part in enumerate((await answer(messages, info)).parts):
            if isinstance(part, TextPart):
                for word in part.content.split(" "):
                    yield word if part.content.startswith(word) else f" {word}"
                    await _shown(world, word)
            elif isinstance(part, ToolCallPart):
                args = part.args_as_json_str()
                yield {
                    index: DeltaToolCall(part.tool_name, args[:1], tool_call_id=part.tool_call_id)
                }
                yield {index: DeltaToolCall(None, args[1:], tool_call_id=part.tool_call_id)}
                await _shown(world, part.tool_name)

    return FunctionModel(answer, stream_function=tell, model_name=name)


async def _shown(world: World, text: str) -> None:
    """Wait until whoever watches the run can see this, so that a crash falls in between."""
    while True:
        rows = world.database.rows("SELECT data FROM durably_events WHERE kind = 'delta'")
        if any(text in str(row["data"]) for row in rows):
            return
        await asyncio.sleep(0.02)


ARGS = {"ask_person": {"question": "How often?"}}
"""What the model gives to tools that want something."""


def _call(tool: str, call_id: str) -> ToolCallPart:
    args = {"sure": True} if tool.endswith("!") else ARGS.get(tool, {})
    return ToolCallPart(tool.removesuffix("!"), args, call_id)


# --- the tools, one for each policy


def _act(metadata: dict[str, Any]) -> Callable[[Agent[None, str], World, str], None]:
    def add(agent: Agent[None, str], world: World, name: str) -> None:
        @agent.tool_plain(name=name, metadata=metadata)
        async def act() -> str:
            return world.act()

    return add


def _act_in_thread(metadata: dict[str, Any]) -> Callable[[Agent[None, str], World, str], None]:
    def add(agent: Agent[None, str], world: World, name: str) -> None:
        @agent.tool_plain(name=name, metadata=metadata)
        def act() -> str:
            return world.act()

    return add


def _reconciled(agent: Agent[None, str], world: World, name: str) -> None:
    def find(ctx: RunContext[None], call: Call) -> effects.Done:
        boundaries.reached("reconcile:before")
        if world.effects()[call.idempotency_key] == 0:
            raise NotDone
        return effects.Done(receipt(call.tool_name, call.idempotency_key))

    _act(effects.once(reconcile=find))(agent, world, name)


def _picky(agent: Agent[None, str], world: World, name: str) -> None:
    @agent.tool_plain(name=name, metadata=effects.once())
    async def act(sure: bool = False) -> str:
        if not sure:
            boundaries.reached("effect:refused")
            raise ModelRetry("Once more, please.")
        return world.act()


def _booked(agent: Agent[None, str], world: World, name: str) -> None:
    @agent.tool_plain(name=name, metadata=effects.TRANSACTIONAL)
    async def act() -> str:
        call = current_call()
        async with call.transaction() as connection:
            boundaries.reached("effect:before")
            booked = write_booking(connection, call.idempotency_key)
            if inspect.isawaitable(booked):
                await booked
            boundaries.reached("effect:after")
        return receipt(call.tool_name, call.idempotency_key)


def _booked_in_thread(agent: Agent[None, str], world: World, name: str) -> None:
    @agent.tool_plain(name=name, metadata=effects.TRANSACTIONAL)
    def act() -> str:
        call = current_call()
        with call.transaction() as connection:
            boundaries.reached("effect:before")
            write_booking(connection, call.idempotency_key)
            boundaries.reached("effect:after")
        return receipt(call.tool_name, call.idempotency_key)


def write_booking(connection: Any, key: str) -> Any:
    """Write into the ledger's own database, with the driver's own connection."""
    mark = "?" if isinstance(connection, sqlite3.Connection) else "%s"
    return connection.execute(f"INSERT INTO bookings VALUES ({mark})", [key])


BOOKINGS = "CREATE TABLE bookings (key TEXT NOT NULL)"
"""The table of the transactional tools, in the ledger's own database."""


TOOLS: dict[str, Callable[[Agent[None, str], World, str], None]] = {
    "read": _act(effects.READ),
    "read in a thread": _act_in_thread(effects.READ),
    "idempotent": _act(effects.IDEMPOTENT),
    "idempotent in a thread": _act_in_thread(effects.IDEMPOTENT),
    "ask": _act(effects.once(on_doubt="ask")),
    "ask in a thread": _act_in_thread(effects.once(on_doubt="ask")),
    "ask, picky": _picky,
    "ask, approved": _act(effects.once(approve=True)),
    "tell": _act(effects.once(on_doubt="tell")),
    "retry": _act(effects.once(on_doubt="retry")),
    "reconcile": _reconciled,
    "transactional": _booked,
    "transactional in a thread": _booked_in_thread,
}


def _alone(policy: str) -> Scenario:
    return Scenario(policy, {"act": policy}, (["act"], "All is well."), shown=_shown_as(policy))


def _shown_as(policy: str) -> str:
    name = policy.removesuffix(" in a thread").removesuffix(", picky")
    return name.upper() if name in ("read", "idempotent", "transactional") else f"once, {name}"


ALONE = {policy: _alone(policy) for policy in TOOLS if policy != "ask, approved"}
"""A run of two requests, with one call between them."""

APPROVED = Scenario(
    "approved",
    {"look": "read", "pay": "ask, approved"},
    (["look", "pay"], ["pay"], "All is well."),
    shown="once, approve",
)
"""A run that waits for approval twice; with each, a person's process may be killed as well."""

MIXED = Scenario(
    "mixed",
    {
        "look": "read in a thread",
        "sync": "idempotent",
        "mail": "ask",
        "charge": "ask in a thread",
        "book": "transactional in a thread",
        "ship": "reconcile",
        "label": "retry",
        "call": "tell",
        "confirm": "ask, picky",
    },
    (
        ["look", "sync", "charge", "book", "mail"],
        ["ship", "label", "sync", "call"],
        ["confirm", "look"],
        ["confirm!"],
        "All is well.",
    ),
)

STREAMED = Scenario(
    "streamed",
    {"look": "read", "mail": "ask"},
    (["look", "mail"], "All is well."),
    stream=True,
    sample=("delta", "checkpoint", "outcome", "settle"),
    shown="once, ask",
)
"""A run that is shown while it is made: a crash falls in the middle of a message."""

SCENARIOS = {**ALONE, APPROVED.name: APPROVED, MIXED.name: MIXED, STREAMED.name: STREAMED}
