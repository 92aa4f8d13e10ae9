"""Tools that do wrong, one for each way and each effect policy, in runs of one worker.

Owns what they do and how such a run has to end; what else must hold is `test_tools`'s.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from crash.children import begin, serve
from crash.scenarios import write_booking
from crash.world import World, receipt
from durably import Durably, NotDone, RetryPolicy, current_call, effects
from durably.execution.call import Call

NOW = RetryPolicy(initial_seconds=0.0, max_seconds=0.0, jitter=0.0)

MAX_ATTEMPTS = 2


class Unspeakable(Exception):
    """Its text cannot be made, nor can it be asked for what other errors have."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    @property
    def response(self) -> object:
        raise RuntimeError("no response")


class Endless(Exception):
    """As of a client that puts the whole response into its error."""

    def __str__(self) -> str:
        return "x" * 20_000_000


class Panic(BaseException):
    """What Rust libraries raise: no Exception."""


def _raising(error: BaseException) -> Callable[[], Any]:
    def wrong() -> Any:
        raise error

    return wrong


def _recursing() -> Any:
    return _recursing()


def _cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@dataclass(frozen=True)
class Fault:
    """A way to do wrong.

    Attributes:
        wrong: what the tool does once it has acted.
        says: what the error of the run, or of the call in doubt, begins with.
        unwritable: it returned what cannot be stored: no other attempt would help.
        fine: it does no harm after all.
        in_thread: the tool is sync, and so in a thread.
    """

    name: str
    wrong: Callable[[], Any]
    says: str = ""
    unwritable: bool = False
    fine: bool = False
    in_thread: bool = False


def _both(name: str, wrong: Callable[[], Any], says: str) -> list[Fault]:
    return [
        Fault(f"a tool {name}", wrong, says),
        Fault(f"a tool {name}, in a thread", wrong, says, in_thread=True),
    ]


def _returning(what: str, make: Callable[[], Any], *, fine: bool = False) -> Fault:
    says = "" if fine else "ResultNotSerializable: Tool 'act' returned"
    return Fault(f"a tool returns {what}", make, says, unwritable=not fine, fine=fine)


_EXITED = "ToolExited: Tool 'act' "

RAISED = [
    *_both("exits by sys.exit()", lambda: sys.exit(3), f"{_EXITED}raised SystemExit: 3"),
    *_both("raises KeyboardInterrupt", _raising(KeyboardInterrupt()), f"{_EXITED}raised Keyb"),
    *_both("raises CancelledError", _raising(asyncio.CancelledError()), f"{_EXITED}ended with Ca"),
    *_both("raises GeneratorExit", _raising(GeneratorExit()), f"{_EXITED}raised GeneratorExit"),
    *_both("panics", _raising(Panic("at lib.rs:1")), f"{_EXITED}raised Panic: at lib.rs:1"),
    *_both("recurses without end", _recursing, "RecursionError: maximum recursion depth"),
    *_both("raises what cannot be said", _raising(Unspeakable()), "Unspeakable: (its text"),
    *_both("raises 20 MB of text", _raising(Endless()), "Endless: xxx"),
    *_both("raises what is no Unicode", _raising(ValueError("a\0\ud800")), "ValueError: a\ufffd?"),
]

RETURNED = [
    _returning("an object", object),
    _returning("a list that contains itself", _cyclic),
    _returning("half a character", lambda: "\ud800"),
    _returning("a generator", lambda: (number for number in range(3))),
    _returning("a number of 5,000 digits", lambda: 10**5000),
    _returning("NaN", lambda: float("nan"), fine=True),
    _returning("bytes that are no text", lambda: b"\xff\0", fine=True),
    _returning("NUL", lambda: "a\0b", fine=True),
    _returning("50 MB of text", lambda: "x" * 50_000_000, fine=True),
]

MEGABYTE = 1 << 20


def _out_of_memory() -> Any:
    hoard: list[bytearray] = []
    while True:
        hoard.append(bytearray(10 * MEGABYTE))


OUT_OF_MEMORY = _both("runs out of memory", _out_of_memory, "MemoryError: ")

LEAK_SECONDS = 300


def _leak() -> Any:
    """Take more and more, until somebody kills the process."""
    _wait_for_the_neighbour()
    hoard: list[bytes] = []
    for _ in range(80):
        hoard.append(os.urandom(10 * MEGABYTE))
    time.sleep(LEAK_SECONDS)


def _exit_at_once() -> Any:
    _wait_for_the_neighbour()
    os._exit(1)


def _wait_for_the_neighbour() -> None:
    """Another run of the worker ends before the worker does."""
    world = World(Path(os.environ["MATRIX_WORLD"]))
    sql = f"SELECT state FROM durably_runs WHERE key = '{NEIGHBOUR}' AND state = 'completed'"
    while not world.database.rows(sql):
        time.sleep(0.05)


FATAL = [
    Fault("a tool exits by os._exit()", _exit_at_once, in_thread=True),
    Fault("a tool leaks memory until it is killed", _leak, in_thread=True),
]

NEIGHBOUR = "neighbour"
"""A run whose tool does well."""

FAULTS = {fault.name: fault for fault in (*RAISED, *RETURNED)}

_ALL = FAULTS | {fault.name: fault for fault in (*OUT_OF_MEMORY, *FATAL)}


def _find(ctx: RunContext[None], call: Call) -> effects.Done:
    world = World(Path(os.environ["MATRIX_WORLD"]))
    if world.effects()[call.idempotency_key] == 0:
        raise NotDone
    return effects.Done(receipt(call.tool_name, call.idempotency_key))


POLICIES: dict[str, dict[str, Any]] = {
    "READ": effects.READ,
    "IDEMPOTENT": effects.IDEMPOTENT,
    "TRANSACTIONAL": effects.TRANSACTIONAL,
    "once, ask": effects.once(),
    "once, tell": effects.once(on_doubt="tell"),
    "once, retry": effects.once(on_doubt="retry"),
    "once, reconcile": effects.once(reconcile=_find),
}


@dataclass(frozen=True)
class Expected:
    """How a run ends whose tool does wrong.

    Attributes:
        effect: the state of the call's effect; None: nothing is recorded.
        times: how often the tool's effect happened.
    """

    state: str
    failures: int
    effect: str | None
    times: int
    requests: int


def expected(fault: Fault, policy: str) -> Expected:
    if fault.fine:
        return Expected("completed", 0, "done", 1, 3)
    if fault.unwritable:
        doubted = "in_doubt" if policy.startswith("once") else None
        return Expected("discarded", 1, doubted, 0 if policy == "TRANSACTIONAL" else 1, 2)
    match policy:
        case "once, ask":
            return Expected("suspended", 0, "in_doubt", 1, 2)
        case "once, tell":
            return Expected("completed", 0, "in_doubt", 1, 3)
        case "once, reconcile":
            return Expected("completed", 0, "done", 1, 3)
        case "once, retry":
            return Expected("discarded", MAX_ATTEMPTS, "in_doubt", MAX_ATTEMPTS, 2)
        case "TRANSACTIONAL":
            return Expected("discarded", MAX_ATTEMPTS, None, 0, 2)
        case _:
            return Expected("discarded", MAX_ATTEMPTS, None, MAX_ATTEMPTS, 2)


def key_of(fault: Fault, policy: str) -> str:
    return f"{fault.name}: {policy}"


def paid_script(world: World, run: str, *tools: str) -> FunctionModel:
    """A model that calls each tool in a response of its own; each request is on the run's bill."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        number = sum(isinstance(message, ModelResponse) for message in messages)
        world.record("paid", run=run, response=number)
        if number == len(tools):
            return ModelResponse(parts=[TextPart("All is well.")])
        return ModelResponse(parts=[ToolCallPart(tools[number], {}, "call_0")])

    return FunctionModel(answer, model_name="script")


def agent_for(world: World, fault: Fault, policy: str) -> Agent[None, str]:
    """One that acts well, then does wrong, then has its say."""
    key = key_of(fault, policy)
    agent = Agent(paid_script(world, key, "well", "act"), name=key)

    @agent.tool_plain(metadata=effects.once())
    async def well() -> str:
        return world.act()

    async def act() -> Any:
        if policy == "TRANSACTIONAL":
            call = current_call()
            async with call.transaction() as connection:
                booked = write_booking(connection, call.idempotency_key)
                if asyncio.iscoroutine(booked):
                    await booked
                return fault.wrong()
        world.act()
        return fault.wrong()

    def act_in_thread() -> Any:
        if policy == "TRANSACTIONAL":
            call = current_call()
            with call.transaction() as connection:
                write_booking(connection, call.idempotency_key)
                return fault.wrong()
        world.act()
        return fault.wrong()

    tool = act_in_thread if fault.in_thread else act
    agent.tool_plain(tool, name="act", metadata=POLICIES[policy])
    return agent


def app_for(
    world: World, faults: list[str], **options: Any
) -> tuple[Durably, dict[tuple[str, str], Agent[None, str]]]:
    os.environ["MATRIX_WORLD"] = str(world.folder)
    app = Durably(world.url)
    agents = {(f, p): agent_for(world, _ALL[f], p) for f in faults for p in POLICIES}
    for agent in agents.values():
        app.register(agent, retry=NOW, max_attempts=MAX_ATTEMPTS, **options)
    app.register(neighbour_for(world))
    return app, agents


def fault_named(name: str) -> Fault:
    return _ALL[name]


def neighbour_for(world: World) -> Agent[None, str]:
    agent = Agent(paid_script(world, NEIGHBOUR, "well"), name=NEIGHBOUR)

    @agent.tool_plain(metadata=effects.once())
    async def well() -> str:
        return world.act()

    return agent


def worker(
    folder: Path, faults: list[str], more_megabytes: int | None = None, **options: Any
) -> None:
    """A worker for such runs, until SIGTERM.

    Args:
        more_megabytes: what it may take beyond what it has.
    """
    begin(folder, "worker")
    world = World(folder)
    if more_megabytes is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more_megabytes * MEGABYTE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    app, _ = app_for(world, faults)
    asyncio.run(serve(world, app, **options))
