"""The message in the making, as whoever watches a run sees it; public as ``durably.Draft``.

Owns what becomes of deltas, one after the other; reading the events is `Run.watch`'s.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelRequest,
    ModelResponse,
    ModelResponsePart,
    OutputToolCallEvent,
    OutputToolResultEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
)

from durably.agents import history
from durably.agents.live import events_from_json
from durably.records import Event

ENDS = frozenset({"step", "claimed", "completed", "discarded", "cancelled"})
"""Events after which nothing of what was shown before is in the making any more."""


class Draft:
    """What is in the making of a run: a response, and results for the request after the last one.

    Give it every event of ``run.watch()``, in order. It is empty where nothing is in the making:
    the messages that are done are in ``run.messages()``.

    Attributes:
        message: the position in the history that the newest message in the making will have; None
            if there is none.
    """

    def __init__(self) -> None:
        self.message: int | None = None
        self._parts: dict[int, ModelResponsePart] = {}
        self._parts_message = -1
        self._calls: dict[str, ToolCallPart] = {}
        self._results: dict[str, ToolReturnPart] = {}
        self._results_message = -1

    @property
    def parts(self) -> list[ModelResponsePart]:
        """The response's parts so far: text, thinking, tool calls with their arguments so far."""
        return [self._parts[index] for index in sorted(self._parts)]

    @property
    def text(self) -> str:
        """The response's text so far."""
        return "".join(part.content for part in self.parts if isinstance(part, TextPart))

    @property
    def thinking(self) -> str:
        """What the response holds of thinking so far."""
        return "".join(part.content for part in self.parts if isinstance(part, ThinkingPart))

    @property
    def running(self) -> list[ToolCallPart]:
        """Calls of the last response that have begun and have no result yet."""
        return [call for call_id, call in self._calls.items() if call_id not in self._results]

    @property
    def results(self) -> list[ToolReturnPart]:
        """Results of calls of the last response, as far as they are there."""
        return list(self._results.values())

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """``parts`` of the response so far, and ``running`` calls and ``results`` of the last one,
        as the parts of stored messages have them."""
        response = history.message_to_json(ModelResponse(parts=[*self.parts]))
        running = history.message_to_json(ModelResponse(parts=[*self.running]))
        results = history.message_to_json(ModelRequest(parts=[*self.results]))
        texts = {"parts": response, "running": running, "results": results}
        return {name: json.loads(text)["parts"] for name, text in texts.items()}

    def apply(self, event: Event) -> bool:
        """Take one event of the run; returns whether that changed the draft."""
        if event.kind == "delta":
            return self._add(event.data)
        if event.kind == "withdrawn":
            return self._withdraw(event.data["message"])
        return event.kind in ENDS and self._withdraw(0)

    def _withdraw(self, first: int) -> bool:
        """Forget the messages from this position on."""
        changed = False
        if self._parts and self._parts_message >= first:
            self._parts, changed = {}, True
        if self._calls | self._results and self._results_message >= first:
            self._calls, self._results, changed = {}, {}, True
        rests = bool(self._calls | self._results)
        self.message = self._results_message if rests else None
        return changed

    def _add(self, data: dict[str, Any]) -> bool:
        changed = False
        for raw in data["events"]:
            for event in events_from_json([raw]):
                changed |= self._take(data["message"], event, "truncated" in raw)
        if changed:
            self.message = data["message"]
        return changed

    def _take(self, message: int, event: AgentStreamEvent, truncated: bool) -> bool:
        match event:
            case PartStartEvent() | PartDeltaEvent() | PartEndEvent():
                return self._grow(message, event, truncated)
            case FunctionToolCallEvent() | OutputToolCallEvent():
                self._calls[event.part.tool_call_id] = event.part
            case FunctionToolResultEvent() | OutputToolResultEvent():
                self._results[event.part.tool_call_id] = event.part
            case _:
                return False
        self._results_message = message
        return True

    def _grow(
        self, message: int, event: PartStartEvent | PartDeltaEvent | PartEndEvent, truncated: bool
    ) -> bool:
        part = self._parts.get(event.index) if message == self._parts_message else None
        match event:
            case PartStartEvent():
                part = event.part
            case PartDeltaEvent():
                try:
                    part = None if part is None else event.delta.apply(part)
                except (ValueError, UnexpectedModelBehavior):
                    return False  # Of a part whose beginning nobody has shown.
            case PartEndEvent():
                part = event.part if part is None or not truncated else part
        if part is None:
            return False
        if message != self._parts_message:
            self._parts, self._parts_message = {}, message
        self._parts[event.index] = part
        return True
