"""The application's agents with their model recorded or replaced, and every tool's body noted.

Owns how that is slipped into a run: by pydantic-ai's own wrappers, around what is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic_ai import ApprovalRequired, CallDeferred, RunContext
from pydantic_ai.agent import AbstractAgent, WrapperAgent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.models import Model
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool, WrapperToolset

from durably.agents import recorded
from durably.agents.checkpoints import Checkpoints
from durably.crashtest.notes import Notes
from durably.effects import EffectPolicy, policy_of
from durably.errors import DurablyError, ResultNotSerializable
from durably.execution.call import Call, current_call
from durably.execution.journal import Journal
from durably.execution.outcome import Waits
from durably.retry import RetryPolicy

AT_ONCE = RetryPolicy(initial_seconds=0.0, max_seconds=0.0, jitter=0.0)

FORBIDDEN = "Model requests are not allowed"
"""What pydantic-ai says where a model must not be asked."""

type MakeModel = Callable[[Model | str, Journal], Model]


class Application(Protocol):
    """What is needed of a `durably.Durably`."""

    @property
    def registry(self) -> Any: ...


def observe_agents(app: Application, make_model: MakeModel, notes: Notes) -> None:
    """Have every agent of the application run with the models made, and its tools noted.

    What fails is tried again at once: the backoff would only be waited for.
    """
    registry = app.registry
    for registration in registry.all().values():
        agent = Observed(registration.agent, make_model, notes, registration.default_effect)
        registry.replace(replace(registration, agent=agent, retry=AT_ONCE))


def is_scripted(model: Model | str | None) -> bool:
    """True of models that ask nobody: pydantic-ai's own for tests."""
    match model:
        case FallbackModel():
            return all(is_scripted(one) for one in model.models)
        case WrapperModel():
            return is_scripted(model.wrapped)
        case _:
            return model == "test" or type(model) in (FunctionModel, TestModel)


class Observed(WrapperAgent[Any, Any]):
    """An agent whose runs under a journal ask another model, and note what its tools do."""

    def __init__(
        self,
        wrapped: AbstractAgent[Any, Any],
        make_model: MakeModel,
        notes: Notes,
        default_effect: EffectPolicy,
    ) -> None:
        super().__init__(wrapped)
        self._make_model = make_model
        self._notes = notes
        self._default_effect = default_effect

    async def run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *args: Any, capabilities: Sequence[Any] = (), **options: Any
    ) -> Any:
        (state,) = [c.state for c in capabilities if isinstance(c, Checkpoints)]
        assert state is not None and self.wrapped.model is not None, "checked before"
        return await self.wrapped.run(
            *args,
            model=self._make_model(self.wrapped.model, state.journal),
            capabilities=[*capabilities, Watch(notes=self._notes, default=self._default_effect)],
            **options,
        )


@dataclass
class Watch(AbstractCapability[Any]):
    """Puts the notes around the tools' bodies."""

    notes: Notes | None = None
    default: EffectPolicy | None = None

    def get_wrapper_toolset(self, toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
        assert self.notes is not None and self.default is not None, "made with them"
        return Noted(toolset, self.notes, self.default)


@dataclass
class Noted(WrapperToolset[Any]):
    """Tools whose bodies are noted when they begin, and how they end."""

    notes: Notes
    default: EffectPolicy

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        call = _call_of(name)
        if call is None:
            return await self.wrapped.call_tool(name, tool_args, ctx, tool)
        facts = {"run": call.run_key, "call": call.call_id, "tool": name}
        policy = policy_of(tool.tool_def.metadata, self.default)
        self.notes.write("began", **facts, policy=str(policy), key=call.idempotency_key)
        try:
            result = await self.wrapped.call_tool(name, tool_args, ctx, tool)
        except (ApprovalRequired, CallDeferred, Waits):
            self.notes.write("left", **facts)
            raise
        except BaseException as error:
            answer = recorded.answer_envelope(error)
            if answer is None:
                self.notes.write("raised", **facts, error=_text(error), asked=_asked(error))
            else:
                self.notes.write("ended", **facts, key=call.idempotency_key, result=answer)
            raise
        self.notes.write("ended", **facts, key=call.idempotency_key, result=_kept(name, result))
        return result


def _call_of(name: str) -> Call | None:
    """The call that this is the body of; None for one that another tool's body makes."""
    try:
        call = current_call()
    except DurablyError:
        return None
    return call if call.tool_name == name else None


def _kept(name: str, result: object) -> str | None:
    try:
        return recorded.returned(name, result)
    except ResultNotSerializable:
        return None  # The run says so itself.


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _asked(error: BaseException) -> bool:
    """True if the tool asked a model that must not be asked here."""
    while True:
        if FORBIDDEN in str(error):
            return True
        inner = error.__cause__ or error.__context__
        if inner is None:
            return False
        error = inner
