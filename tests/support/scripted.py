"""Scripted models: answers by how far the history is, and a record of what they were sent."""

from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)

from durably import RetryPolicy

NOW = RetryPolicy(initial_seconds=0.0, max_seconds=0.0, jitter=0.0)
"""Try again at once: these tests are about what is tried again, not when."""


class Script:
    """A model that answers by how many responses the history has; records what it was sent."""

    def __init__(self, *steps: str | list[ToolCallPart] | Exception, name: str = "script") -> None:
        self.steps = list(steps)
        self.seen: list[list[ModelMessage]] = []
        self.fail_once: dict[int, Exception] = {}
        self.infos: list[AgentInfo] = []
        self.model = FunctionModel(self._answer, model_name=name)

    @property
    def stream_model(self) -> FunctionModel:
        """The same model, for agents that stream."""
        return FunctionModel(self._answer, stream_function=self._stream, model_name="script")

    async def _stream(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | DeltaToolCalls]:
        for index, part in enumerate(self._answer(messages, info).parts):
            if isinstance(part, TextPart):
                yield part.content
            elif isinstance(part, ToolCallPart):
                call = DeltaToolCall(
                    part.tool_name, part.args_as_json_str(), tool_call_id=part.tool_call_id
                )
                yield {index: call}

    @property
    def requests(self) -> int:
        return len(self.seen)

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.seen.append(list(messages))
        self.infos.append(info)
        done = sum(isinstance(message, ModelResponse) for message in messages)
        if (error := self.fail_once.pop(done, None)) is not None:
            raise error
        step = self.steps[done]
        if isinstance(step, Exception):
            raise step
        return ModelResponse(parts=[TextPart(step)] if isinstance(step, str) else step)


def call(name: str, call_id: str = "call_0", **args: object) -> ToolCallPart:
    return ToolCallPart(name, args, call_id)


def tool_texts(messages: list[Any]) -> list[str]:
    """What the tools answered, as the messages have it."""
    return [
        str(part.content)
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
