"""A tiny application for the command line's tests: scripted agents, steered by files in a folder.

``DESK`` names the folder; the ledger is DURABLY_URL's.
"""

import gc
import os
import threading
import time
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

import durably
from durably import Durably, effects, human


def _folder() -> Path:
    return Path(os.environ["DESK"])


def _note(what: str) -> None:
    with (_folder() / "notes.txt").open("a") as notes:
        notes.write(f"{what}\n")


def _echo(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    (prompt,) = [part.content for part in messages[0].parts if part.part_kind == "user-prompt"]
    return ModelResponse(parts=[TextPart(f"{len(prompt)}: {prompt[:40]}")])


def _calls(tool: str, **args: object) -> FunctionModel:
    """A model that calls a tool once, and answers with its result."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        _note(f"model {tool}")
        last = messages[-1]
        assert isinstance(last, ModelRequest)
        returned = [part.content for part in last.parts if isinstance(part, ToolReturnPart)]
        if returned:
            return ModelResponse(parts=[TextPart(f"{tool}: {returned[0]}")])
        given = args or {"amount": 5}
        return ModelResponse(parts=[ToolCallPart(tool, given, tool_call_id="call_0")])

    return FunctionModel(answer, model_name="scripted")


def _collect(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """How much a full collection looks at, and how much it leaves alone."""
    return ModelResponse([TextPart(f"{len(gc.get_objects())} {gc.get_freeze_count()}")])


echo = Agent(FunctionModel(_echo, model_name="scripted"), name="echo")
collector = Agent(FunctionModel(_collect, model_name="scripted"), name="collector")
cashier = Agent(_calls("charge"), name="cashier", instructions="Charge what is asked.")
patient = Agent(_calls("wait"), name="patient")
stuck = Agent(_calls("block"), name="stuck")
payer = Agent(_calls("pay_back"), name="payer")
asker = Agent(
    _calls("ask_choice", question="Which colour?", choices=["red", "blue"]),
    name="asker",
    toolsets=[human.toolset()],
)


def _ask(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Asks a person what the prompt says, and answers with what they said."""
    (prompt,) = [part.content for part in messages[0].parts if part.part_kind == "user-prompt"]
    last = messages[-1]
    returned = [part.content for part in last.parts if isinstance(part, ToolReturnPart)]
    if returned:
        return ModelResponse(parts=[TextPart(f"They said: {returned[0]}")])
    return ModelResponse(parts=[ToolCallPart("ask_person", {"question": prompt})])


curious = Agent(
    FunctionModel(_ask, model_name="scripted"), name="curious", toolsets=[human.toolset()]
)


planner = Agent(_calls("plan"), name="planner")
boss = Agent(_calls("delegate"), name="boss")


@planner.tool_plain(metadata=effects.WAITS)
async def plan(amount: int) -> str:
    """Look once, then wait for a signal."""
    await durably.step("look", _note, "look", effect=effects.READ)
    return f"planned for {await durably.wait_for_signal('date')}"


@boss.tool_plain(metadata=effects.WAITS)
async def delegate(amount: int) -> str:
    """Have the payer pay back."""
    return await durably.run_child(payer, "pay back", key="errand")


@payer.tool_plain(metadata=effects.once(approve=True))
def pay_back(amount: int) -> str:
    """Pay back, if somebody approves."""
    _note(f"pay back {amount}")
    return f"paid back {amount}"


@cashier.tool_plain(metadata=effects.once())
def charge(amount: int) -> str:
    """Charge; breaks after it acted as long as there is a file named broken."""
    _note(f"charge {amount}")
    if (_folder() / "broken").exists():
        raise RuntimeError("the connection broke")
    return f"charged {amount}"


@patient.tool_plain(metadata=effects.READ)
def wait(amount: int) -> str:
    """Return once there is a file named go."""
    _note("wait")
    while not (_folder() / "go").exists():
        time.sleep(0.01)
    return "done"


@stuck.tool_plain
def block(amount: int) -> str:
    """Never return."""
    _note("block")
    threading.Event().wait()
    return "never"


def make() -> Durably:
    """The application; a new one each time, with the ledger that the environment names now."""
    agents = [echo, collector, cashier, patient, stuck, payer, asker, curious, planner, boss]
    return Durably(agents=agents)


not_an_app = 42


def breaks() -> Durably:
    """A factory with a bug."""
    raise ZeroDivisionError("no way")
