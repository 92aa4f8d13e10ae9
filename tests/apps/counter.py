"""An application for crash tests: agents with tools that write to a file, good ones and bad.

``COUNTER`` names the folder of the file; the ledger is DURABLY_URL's, which no crash test touches.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters, check_allow_model_requests
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)
from pydantic_ai.settings import ModelSettings

import durably
from durably import Durably, NotDone, RunInfo, current_call, effects, human


def _file() -> Path:
    return Path(os.environ["COUNTER"]) / "outside.jsonl"


def act(**facts: object) -> str:
    """A side effect, there when this returns."""
    call = current_call()
    note(tool=call.tool_name, key=call.idempotency_key, **facts)
    return f"{call.tool_name}: receipt {call.idempotency_key}"


def note(**facts: object) -> None:
    line = json.dumps(facts)
    file = os.open(_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{line}\n".encode())
    os.fsync(file)
    os.close(file)


def lines() -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in _file().read_text().splitlines()] if _file().exists() else []
    )


def count() -> int:
    """A probe: how many side effects there are; a repeat by the same key counts as well."""
    return len(lines())


async def count_by_tool() -> dict[str, int]:
    """A probe that tells tools apart."""
    return dict(Counter(line["tool"] for line in lines()))


def count_recognised() -> dict[str, int]:
    """A probe of a world that takes the same idempotency key for the same deed."""
    return dict(Counter(tool for tool, _ in {(line["tool"], line.get("key")) for line in lines()}))


def confused() -> str:
    """A probe that counts nothing."""
    return "many"


def script(*responses: list[str] | str) -> FunctionModel:
    """A model that answers by how far the history is."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        response = responses[sum(isinstance(message, ModelResponse) for message in messages)]
        if isinstance(response, str):
            return ModelResponse(parts=[TextPart(response)])
        calls = [
            ToolCallPart(tool, ARGS.get(tool, {}), f"call_{i}") for i, tool in enumerate(response)
        ]
        return ModelResponse(parts=calls)

    async def tell(
        messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | DeltaToolCalls]:
        for index, part in enumerate(answer(messages, info).parts):
            if isinstance(part, TextPart):
                yield part.content
            elif isinstance(part, ToolCallPart):
                args, call_id = part.args_as_json_str(), part.tool_call_id
                yield {index: DeltaToolCall(part.tool_name, args, tool_call_id=call_id)}

    return FunctionModel(answer, stream_function=tell, model_name="script")


ARGS = {"ask_person": {"question": "How often?"}}


def tools(agent: Agent[Any, Any]) -> None:
    """One tool for each policy."""

    @agent.tool_plain(metadata=effects.READ)
    def look() -> str:
        return "42"

    @agent.tool_plain(metadata=effects.IDEMPOTENT)
    def mail() -> str:
        return act()

    @agent.tool_plain(metadata=effects.once())
    async def charge() -> str:
        return act()

    @agent.tool_plain(metadata=effects.once(on_doubt="tell"))
    def call() -> str:
        return act()

    @agent.tool_plain(metadata=effects.once(reconcile=find))
    def ship() -> str:
        return act()

    @agent.tool_plain(metadata=effects.once(approve=True))
    def refund() -> str:
        return act()

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    def book() -> str:
        with current_call().transaction():
            pass
        return "booked"

    @agent.tool_plain(metadata=effects.WAITS)
    async def plan() -> str:
        await durably.step("first", act, effect=effects.once(), step="first")
        await durably.sleep(3600)
        parts = await durably.wait_for_signal("parts")
        child = await durably.run_child(helper, "Help.")
        return f"{parts}, {child}"


def find(ctx: RunContext[Any], call: durably.Call) -> effects.Done:
    """Whether it happened, as the file has it."""
    if not any(line["key"] == call.idempotency_key for line in lines()):
        raise NotDone
    return effects.Done(f"{call.tool_name}: receipt {call.idempotency_key}")


careful = Agent(
    script(["look", "mail", "charge"], ["call", "ship", "refund", "book"], "All is well."),
    name="careful",
)
tools(careful)

helper = Agent(script(["look", "charge"], "Helped."), name="helper")
tools(helper)

patient = Agent(
    script(["plan"], ["ask_person"], "Done."), name="patient", toolsets=[human.toolset()]
)
tools(patient)

streamer = Agent(script(["look", "charge"], "All is well, and said in pieces."), name="streamer")
tools(streamer)

careless = Agent(script(["look", "pay"], "Paid."), name="careless")
tools(careless)


@careless.tool_plain(metadata=effects.IDEMPOTENT)
def pay() -> str:
    """Declared as what it is not: nobody outside is told the key."""
    return act()


forgetful = Agent(script(["send"], "Sent."), name="forgetful")


def never(ctx: RunContext[Any], call: durably.Call) -> effects.Done:
    """Never knows of anything."""
    raise NotDone


@forgetful.tool_plain(metadata=effects.once(reconcile=never))
def send() -> str:
    return act()


class Provider(FunctionModel):
    """A model as providers have them: it costs something, and may be forbidden."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        check_allow_model_requests()
        note(tool="model")
        return await super().request(messages, model_settings, model_request_parameters)


def _one_charge(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return script(["charge"], "Charged.").function(messages, info)  # type: ignore[return-value]


paying = Agent(Provider(_one_charge), name="paying")
tools(paying)

gossip = Agent(script(["ask_around"], "Heard."), name="gossip")


@gossip.tool_plain(metadata=effects.READ)
async def ask_around() -> str:
    """Runs an agent by itself, with a real model."""
    other = Agent(Provider(lambda messages, info: ModelResponse(parts=[TextPart("Nothing.")])))
    return (await other.run("What is new?")).output


modelless = Agent(name="modelless")


class Order(BaseModel):
    number: int


class Desk(BaseModel):
    number: int


def desk(run: RunInfo) -> Desk:
    return Desk(number=run.args["number"])


typed = Agent(
    FallbackModel(script(["order"], ["final_result"]), script("never")),
    name="typed",
    deps_type=Desk,
    output_type=Order,
)
ARGS["final_result"] = {"number": 42}


@typed.tool(metadata=effects.once())
def order(ctx: RunContext[Desk]) -> int:
    act()
    return ctx.deps.number


def make() -> Durably:
    """The application, with the ledger that the environment names; it asks no provider."""
    app = Durably(agents=[careful, helper, patient, careless, forgetful])
    app.register(streamer, stream=True)
    app.register(typed, deps=desk)
    return app


def real() -> Durably:
    """One with agents that do, or have no model at all."""
    return Durably(agents=[paying, gossip, modelless])
