"""An application whose ledger is moved: runs that wait, fail and die, and a note of all they do.

``DESK`` names the folder with the notes and with the files that steer it; the ledger is
DURABLY_URL's. A prompt is the names of the tools to call, one in each response.
"""

import os
import signal
import time
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Durably, RetryPolicy, current_call, effects

ODD = "NUL \0, half \ud800, all \U0001f9fe, \\N"


def _there_is(name: str) -> bool:
    return (Path(os.environ["DESK"]) / name).exists()


def note(what: str) -> None:
    call_or_run = f"{what}\n".encode()
    notes = os.open(Path(os.environ["DESK"]) / "notes.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(notes, call_or_run)
    os.fsync(notes)
    os.close(notes)


def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    (prompt,) = [part.content for part in messages[0].parts if part.part_kind == "user-prompt"]
    name, *tools = str(prompt).split()
    done = sum(isinstance(message, ModelResponse) for message in messages)
    if done == len(tools) and name == "retryable" and not _there_is("calm"):
        raise RuntimeError("the model is out for lunch")
    note(f"{name}: request {done}")
    if done == len(tools):
        return ModelResponse(parts=[TextPart(f"{name} is done")])
    # An id that providers repeat, on purpose.
    return ModelResponse(parts=[ToolCallPart(tools[done], {}, tool_call_id="call_0")])


clerk = Agent(FunctionModel(_answer, model_name="scripted"), name="clerk")


def _act() -> None:
    call = current_call()
    note(f"{call.idempotency_key}: {call.tool_name}")


@clerk.tool_plain(metadata=effects.once())
def act() -> dict[str, str]:
    """Act once, and say what hardly any database can store."""
    _act()
    return {"odd": ODD.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), "nul": "\0"}


@clerk.tool_plain(metadata=effects.once())
def break_after() -> str:
    """Act, and leave it open whether that happened."""
    _act()
    raise RuntimeError("the connection broke")


@clerk.tool_plain(metadata=effects.once())
def die_after() -> str:
    """Act, and die with the whole process."""
    _act()
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    return "never"


@clerk.tool_plain(metadata=effects.once(approve=True))
def act_if_allowed() -> str:
    """Act, if somebody says so."""
    _act()
    return "acted"


@clerk.tool_plain(metadata=effects.READ)
def wait() -> str:
    """Wait until there is a file named go."""
    note("waiting")
    while not _there_is("go"):
        time.sleep(0.02)
    return "waited"


def make() -> Durably:
    """The application, with the ledger that the environment names now."""
    app = Durably()
    soon = RetryPolicy(initial_seconds=5.0, max_seconds=5.0, jitter=0.0)
    app.register(clerk, retry=soon, max_attempts=1000)
    return app
