"""Scripted models: answers by how far the history is, and a record of what they were sent.

Owns the script; Pydantic AI's `FunctionModel` makes a model of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel


@dataclass(frozen=True, slots=True)
class Chunks:
    """A text as it is streamed; an exception in between breaks the stream there, once."""

    pieces: tuple[str | Exception, ...]


type Answer = str | ToolCallPart | Sequence[str | ToolCallPart] | Chunks | ModelResponse
"""A text; one call; texts and calls of one response; a stream; or a whole response."""

type Step = Answer | Exception | Callable[[list[ModelMessage], AgentInfo], "Answer | Exception"]
"""What to answer; what to raise instead; or a function of what the model is sent that says so."""


class ScriptEnded(AssertionError):
    """The agent asked for more responses than its script has."""


def call(tool: str, call_id: str = "", /, **args: Any) -> ToolCallPart:
    """A tool call with these arguments, as a step of a script or a part of one.

    Args:
        call_id: the provider's id of the call; by default ``call_0`` and so on, from the start in
            each response, as some providers have it.
    """
    return ToolCallPart(tool, args, call_id)


def chunks(*pieces: str | Exception) -> Chunks:
    """A text that is streamed in these pieces; an exception breaks the stream at that place, once.

    A model that is not asked for a stream answers with the whole text, or raises the exception.
    """
    return Chunks(pieces)


class ScriptedModel(FunctionModel):
    """A model that plays a script: ``Agent(ScriptedModel(call("charge", cents=5), "Paid."))``.

    It answers by how many responses the history has. A run that is resumed therefore goes on in the
    script where it was, whichever process asks, and is not answered again what it has saved. It can
    be streamed: texts by words, calls in two pieces.

    Args:
        steps: each the response to one request. An exception is raised once, before the step that
            comes after it is given; the last step, each time that it is asked for.
        name: the model's name.

    Attributes:
        steps: the responses, by how many there are before each; may be changed.
        seen: the messages of each request so far.
        infos: what else was sent with each: tools, settings, instructions.
        fail_once: exceptions to raise, once, instead of a response: by how many there are already.
    """

    def __init__(self, *steps: Step, name: str = "script") -> None:
        super().__init__(self._answer, stream_function=self._stream, model_name=name)
        self._script = name
        self.steps: list[Step] = []
        self._errors: dict[int, list[Exception]] = {}
        self.seen: list[list[ModelMessage]] = []
        self.infos: list[AgentInfo] = []
        self.fail_once: dict[int, Exception] = {}
        for number, step in enumerate(steps):
            if isinstance(step, Exception) and number < len(steps) - 1:
                self._errors.setdefault(len(self.steps), []).append(step)
            else:
                self.steps.append(step)

    @property
    def requests(self) -> int:
        """How many requests were made, also those that were answered with an exception."""
        return len(self.seen)

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        pieces, response = self._next(messages, info)
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
        return response

    async def _stream(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | DeltaToolCalls]:
        pieces, response = self._next(messages, info)
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece
        if pieces:
            return
        for index, part in enumerate(response.parts):
            if isinstance(part, TextPart):
                for number, word in enumerate(part.content.split(" ")):
                    yield f" {word}" if number else word
            elif isinstance(part, ToolCallPart):
                args, call_id = part.args_as_json_str(), part.tool_call_id
                yield {index: DeltaToolCall(part.tool_name, args[:1], tool_call_id=call_id)}
                yield {index: DeltaToolCall(None, args[1:], tool_call_id=call_id)}

    def _next(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> tuple[Sequence[str | Exception], ModelResponse]:
        """What to answer: in pieces, if the script has them; and as a whole."""
        self.seen.append(list(messages))
        self.infos.append(info)
        number = sum(isinstance(message, ModelResponse) for message in messages)
        if (error := self.fail_once.pop(number, None)) is not None:
            raise error
        if errors := self._errors.get(number):
            raise errors.pop(0)
        if number >= len(self.steps):
            raise ScriptEnded(
                f"The script of model {self._script!r} has {len(self.steps)} responses, and is "
                f"asked for one more, after: {_described(messages)}"
            )
        step = self.steps[number]
        if callable(step):
            step = step(messages, info)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Chunks):
            text = "".join(piece for piece in step.pieces if isinstance(piece, str))
            if any(isinstance(piece, Exception) for piece in step.pieces):
                self.steps[number] = Chunks((text,))
            return step.pieces, ModelResponse(parts=[TextPart(text)])
        return (), _response(step)


def _response(answer: str | ToolCallPart | Sequence[str | ToolCallPart] | ModelResponse) -> Any:
    if isinstance(answer, ModelResponse):
        return answer
    given = [answer] if isinstance(answer, (str, ToolCallPart)) else answer
    parts: list[TextPart | ToolCallPart] = []
    calls = 0
    for part in given:
        if isinstance(part, str):
            parts.append(TextPart(part))
            continue
        parts.append(part if part.tool_call_id else replace(part, tool_call_id=f"call_{calls}"))
        calls += 1
    return ModelResponse(parts=parts)


def _described(messages: Sequence[ModelMessage]) -> str:
    said = [str(getattr(part, "content", part)) for part in messages[-1].parts] if messages else []
    return "; ".join(said)[:500] or "nothing"


def tool_texts(messages: Sequence[ModelMessage]) -> list[str]:
    """What the tools answered, as the messages have it."""
    return [
        str(part.content)
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, ToolReturnPart)
    ]
