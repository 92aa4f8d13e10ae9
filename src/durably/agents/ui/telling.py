"""A run's events as pydantic-ai's own stream of them, as if one agent had run without a break.

Owns what was shown already: a message is told once, whole, whatever was seen of its making.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    OutputToolCallEvent,
    OutputToolResultEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
    ToolReturnPart,
)

from durably.agents.live import events_from_json


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What was shown of a message will not come: its attempt is over.

    Attributes:
        parts: what was shown of it.
        before: the messages of the run that are there, and stay.
    """

    parts: tuple[ModelResponsePart, ...]
    before: tuple[ModelMessage, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """The run waits for somebody, or goes on.

    Attributes:
        told: what for, as JSON; None: it goes on.
        approvals: the ids, as they were told, of the calls that wait for approval.
    """

    told: dict[str, Any] | None
    approvals: tuple[str, ...] = ()


type Told = AgentStreamEvent | Withdrawn | Waiting


@dataclass(slots=True)
class Telling:
    """Turns what becomes known of a run into events, each thing once.

    Attributes:
        messages: those that are whole.
    """

    messages: list[ModelMessage] = field(default_factory=list[ModelMessage])
    _message: int | None = None
    _shown: dict[int, ModelResponsePart] = field(default_factory=dict[int, ModelResponsePart])
    _open: int | None = None
    _told_calls: set[str] = field(default_factory=set[str])
    _told_results: set[str] = field(default_factory=set[str])
    _ids: dict[str, str] = field(default_factory=dict[str, str])
    """The ids of the last response's calls as they are told: providers repeat theirs."""
    _used_ids: set[str] = field(default_factory=set[str])
    _ids_of: int | None = None

    def delta(self, data: dict[str, Any]) -> Iterator[Told]:
        """Pieces of a message in the making (see ``agents.live``)."""
        for raw in data["events"]:
            for event in events_from_json([raw]):
                yield from self._piece(data["message"], event, "truncated" in raw)

    def withdraw(self) -> Iterator[Told]:
        """The message in the making will not come."""
        if self._shown:
            yield from self._close()
            yield Withdrawn(tuple(self._parts()), tuple(self.messages))
        self._forget()

    def whole(self, seq: int, message: ModelMessage) -> Iterator[Told]:
        """A message is there: what was not shown of it yet."""
        if isinstance(message, ModelResponse):
            yield from self._response(seq, message)
        else:
            yield from self._results(message)
        self.messages.append(message)

    def end(self) -> Iterator[Told]:
        """Nothing comes any more."""
        yield from self._close()
        self._forget()

    # --- pieces

    def _piece(self, seq: int, event: AgentStreamEvent, truncated: bool) -> Iterator[Told]:
        match event:
            case PartStartEvent() if not truncated:
                if seq != self._message:
                    yield from self.withdraw()
                    self._message = seq
                yield from self._close()
                part = self._own_id(seq, event.part)
                self._shown[event.index], self._open = part, event.index
                yield replace(event, part=part)
            case PartDeltaEvent() if seq == self._message and event.index == self._open:
                yield from self._grow(seq, event)
            case PartEndEvent() if seq == self._message and event.index == self._open:
                yield from self._close()
            case FunctionToolCallEvent() | OutputToolCallEvent() if not truncated:
                yield from self._call(self._with_id(event.part))
            case FunctionToolResultEvent() | OutputToolResultEvent() if not truncated:
                yield from self._result(event.part)
            case _:
                return  # The whole message will say it.

    def _grow(self, seq: int, event: PartDeltaEvent) -> Iterator[Told]:
        delta = event.delta
        if isinstance(delta, ToolCallPartDelta):
            part = self._shown[event.index]
            delta = replace(delta, tool_call_id=getattr(part, "tool_call_id", None))
        try:
            self._shown[event.index] = delta.apply(self._shown[event.index])
        except (ValueError, UnexpectedModelBehavior):
            return
        yield replace(event, delta=delta)

    def _close(self) -> Iterator[Told]:
        if self._open is not None and isinstance(part := self._shown[self._open], _STREAMED):
            yield PartEndEvent(index=self._open, part=part)
        self._open = None

    def _forget(self) -> None:
        self._message, self._shown, self._open = None, {}, None

    def _parts(self) -> list[ModelResponsePart]:
        return [self._shown[index] for index in sorted(self._shown)]

    # --- whole messages

    def _response(self, seq: int, message: ModelResponse) -> Iterator[Told]:
        whole = [self._own_id(seq, part) for part in message.parts]
        if self._message != seq or not self._begins(whole):
            yield from self.withdraw()
        shown = [index for index in sorted(self._shown) if _says(self._shown[index])]
        for index, part in zip(shown, whole, strict=False):
            yield from self._rest(index, part)
        yield from self._close()
        first = shown[-1] + 1 if shown else 0
        for index, part in enumerate(whole[len(shown) :], first):
            yield PartStartEvent(index=index, part=part)
            if isinstance(part, _STREAMED):
                yield PartEndEvent(index=index, part=part)
        self._forget()
        for part in whole:
            if isinstance(part, ToolCallPart):
                yield from self._call(part)

    def _rest(self, index: int, whole: ModelResponsePart) -> Iterator[Told]:
        """What was not shown of a part that is open; of an ended one all was."""
        if index != self._open:
            return
        rest = _text(whole)[len(_text(self._shown[index])) :]
        if rest and (delta := _delta(whole, rest)) is not None:
            yield PartDeltaEvent(index=index, delta=delta)
        self._shown[index] = whole
        yield from self._close()

    def _begins(self, whole: Sequence[ModelResponsePart]) -> bool:
        """Whether what was shown is how the whole message begins, up to the part that is open."""
        shown = [index for index in sorted(self._shown) if _says(self._shown[index])]
        if len(shown) > len(whole):
            return False
        for index, part in zip(shown, whole, strict=False):
            said, all_of_it = _text(self._shown[index]), _text(part)
            same = all_of_it.startswith(said) if index == self._open else all_of_it == said
            if type(part) is not type(self._shown[index]) or not same:
                return False
        return True

    def _results(self, message: ModelRequest) -> Iterator[Told]:
        for part in message.parts:
            if isinstance(part, ToolReturnPart):
                yield from self._result(part)
            elif part.part_kind == "retry-prompt" and part.tool_name is not None:
                # As older versions of pydantic-ai write what a model has to do again.
                content, call_id = part.model_response(), part.tool_call_id
                yield from self._result(
                    ToolReturnPart(part.tool_name, content, call_id, outcome="failed")
                )

    # --- calls

    def _call(self, part: ToolCallPart) -> Iterator[Told]:
        if part.tool_call_id not in self._told_calls:
            self._told_calls.add(part.tool_call_id)
            yield FunctionToolCallEvent(part=part, args_valid=True)

    def _result(self, part: ToolReturnPart) -> Iterator[Told]:
        told_id = self.told_id(part.tool_call_id)
        if told_id not in self._told_results:
            self._told_results.add(told_id)
            yield FunctionToolResultEvent(part=replace(part, tool_call_id=told_id))

    def told_id(self, tool_call_id: str) -> str:
        """A call of the last response, by its provider's id: its id as it was told."""
        return self._ids.get(tool_call_id, tool_call_id)

    def _own_id[PartT: ModelResponsePart](self, seq: int, part: PartT) -> PartT:
        if not isinstance(part, ToolCallPart):
            return part
        if seq != self._ids_of:
            self._ids, self._ids_of = {}, seq
        if part.tool_call_id not in self._ids:
            told = part.tool_call_id
            if told in self._used_ids:
                told = f"{told}-{seq}"
            self._used_ids.add(told)
            self._ids[part.tool_call_id] = told
        return replace(part, tool_call_id=self._ids[part.tool_call_id])

    def _with_id(self, part: ToolCallPart) -> ToolCallPart:
        return replace(part, tool_call_id=self.told_id(part.tool_call_id))


_STREAMED = (TextPart, ThinkingPart, ToolCallPart)
"""Parts that are told to have ended."""


def _says(part: ModelResponsePart) -> bool:
    """An empty part in the making may not be in the message."""
    return not isinstance(part, TextPart | ThinkingPart) or bool(part.content)


def _text(part: ModelResponsePart) -> str:
    match part:
        case TextPart() | ThinkingPart():
            return part.content
        case ToolCallPart():
            return part.args if isinstance(part.args, str) else part.args_as_json_str()
        case _:
            return ""


def _delta(
    part: ModelResponsePart, rest: str
) -> TextPartDelta | ThinkingPartDelta | ToolCallPartDelta | None:
    match part:
        case TextPart():
            return TextPartDelta(content_delta=rest)
        case ThinkingPart():
            return ThinkingPartDelta(content_delta=rest)
        case ToolCallPart():
            return ToolCallPartDelta(args_delta=rest, tool_call_id=part.tool_call_id)
        case _:
            return None
