"""The runs whose tools wait, step by step: for people, times, signals and other runs.

Owns the agents; what people do meanwhile is `people`'s, what must hold after a crash is in
`waiting_promises`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent, RunContext

import durably
from crash.scenarios import PRICES, Responses, scripted, write_booking
from crash.world import World, receipt
from durably import Durably, NotDone, boundaries, current_call, effects, human
from durably.execution.call import Call

SHORT_SECONDS = 0.1
"""How long is slept, and waited for what does not come."""

EARLY = ("a", "b")
"""Payloads of the signal ``part``, sent before anybody waits for it."""

LATE = {"paid": 42}
"""Payload of the signal ``late``, sent once somebody waits for it."""

ANSWER = "Twice."
LAPSING = "lapse"
"""The tool whose approval nobody decides about."""

type Tool = Callable[[Agent[None, str], World], None]


@dataclass(frozen=True)
class Waiting:
    """A run to crash, with the run that it starts.

    Attributes:
        tools: of the parent, by name.
        responses: the parent's script.
        child: the child's tools and script.
        in_order: False if people, times and tools meet in another order each time.
        ends: how the run ends.
        sample: the boundaries that a sample strikes, by how their names begin; the others are
            struck in another scenario.
    """

    name: str
    tools: dict[str, Tool]
    responses: Responses
    child: tuple[dict[str, Tool], Responses] | None = None
    in_order: bool = True
    ends: str = "completed"
    sample: tuple[str, ...] = ("",)

    def app(self, world: World) -> tuple[Durably, Agent[None, str]]:
        """The application, made anew in each process as a deployed one would be."""
        parent = _agent("clerk", self.tools, self.responses, world)
        others = [] if self.child is None else [_agent("helper", *self.child, world)]
        return Durably(world.url, agents=[parent, *others], prices=PRICES), parent


def _agent(
    name: str, tools: dict[str, Tool], responses: Responses, world: World
) -> Agent[None, str]:
    agent = Agent(scripted(world, responses), name=name, toolsets=[human.toolset()])
    for add in tools.values():
        add(agent, world)
    return agent


# --- steps, one under each policy


def _work(agent: Agent[None, str], world: World) -> None:
    """A tool that is left, and runs again, in the middle of its steps."""

    def find(ctx: RunContext[None], call: Call) -> effects.Done:
        boundaries.reached("reconcile:before")
        if world.effects()[call.idempotency_key] == 0:
            raise NotDone
        return effects.Done(receipt(call.tool_name, call.idempotency_key))

    async def act() -> str:
        return world.act()

    async def book() -> str:
        call = current_call()
        async with call.transaction() as connection:
            boundaries.reached("effect:before")
            booked = write_booking(connection, call.idempotency_key)
            if inspect.isawaitable(booked):
                await booked
            boundaries.reached("effect:after")
        return receipt(call.tool_name, call.idempotency_key)

    @agent.tool_plain(metadata=effects.WAITS)
    async def work() -> list[str]:
        return [
            await durably.step("read", world.act, effect=effects.READ),
            await durably.step("ask", act),
            await durably.step("book", book, effect=effects.TRANSACTIONAL),
            str(await durably.sleep(SHORT_SECONDS)),
            await durably.step("idempotent", act, effect=effects.IDEMPOTENT),
            await durably.step("find", act, effect=effects.once(reconcile=find)),
            await durably.step("pay", act, effect=effects.once(approve=True)),
        ]


# --- waits


def _listen(agent: Agent[None, str], world: World) -> None:
    """For signals that came before, one that comes meanwhile, and one that never does."""

    @agent.tool_plain(metadata=effects.WAITS)
    async def listen() -> list[Any]:
        return [
            await durably.wait_for_signal("part"),
            await durably.wait_for_signal("late"),
            await durably.wait_for_signal("part", timeout=3600),
            await durably.wait_for_signal("never", timeout=SHORT_SECONDS, default="nobody"),
        ]


def _pay(agent: Agent[None, str], world: World) -> None:
    @agent.tool_plain(metadata=effects.once(approve=True))
    async def pay() -> str:
        return world.act()


def _lapse(agent: Agent[None, str], world: World) -> None:
    metadata = effects.once(approve=True, approve_within=SHORT_SECONDS, on_expiry="deny")

    @agent.tool_plain(name=LAPSING, metadata=metadata)
    async def lapse() -> str:
        return world.act()


# --- other runs


def _charge(agent: Agent[None, str], world: World) -> None:
    @agent.tool_plain(metadata=effects.once())
    async def charge() -> str:
        return world.act()


def _delegate(agent: Agent[None, str], world: World) -> None:
    async def act() -> str:
        return world.act()

    @agent.tool_plain(metadata=effects.WAITS)
    async def delegate() -> list[str]:
        before = await durably.step("before", act)
        found = await durably.run_child("helper", "Look after the rest.")
        return [before, found, await durably.step("after", act)]


def _wait_for_ever(agent: Agent[None, str], world: World) -> None:
    @agent.tool_plain(metadata=effects.WAITS)
    async def wait() -> str:
        return await durably.wait_for_signal("nobody sends it")


STEPS = Waiting("steps", {"work": _work}, (["work"], "All is well."))
"""One tool whose steps have each policy, one of them approved; it sleeps between them."""

WAITS = Waiting(
    "waits",
    {"listen": _listen, "pay": _pay, LAPSING: _lapse},
    (["listen"], ["pay"], [LAPSING], ["ask_person"], "All is well."),
)
"""One wait after the other: signals, an approval, one that expires, a question."""

TOGETHER = Waiting(
    "together",
    {"listen": _listen, "work": _work, "pay": _pay, LAPSING: _lapse},
    (["listen", "work", "pay", LAPSING, "ask_person"], "All is well."),
    in_order=False,
)
"""The same in one response: the run waits for people, times and signals at once."""

FAMILY = Waiting(
    "family",
    {"delegate": _delegate},
    (["delegate"], "All is well."),
    child=({"charge": _charge, "pay": _pay}, (["charge", "pay"], "The rest is well.")),
    sample=("child:", "end:", "settle:", "decision:", "outcome:"),
)
"""A run that another one starts, with a tool that acts once and an approval."""

CALLED_OFF = Waiting(
    "called off",
    {"delegate": _delegate},
    (["delegate"],),
    child=({"wait": _wait_for_ever}, (["wait"],)),
    ends="cancelled",
)
"""The parent is cancelled while its child waits: the child ends as well."""

WAITING = {w.name: w for w in (STEPS, WAITS, TOGETHER, FAMILY, CALLED_OFF)}
