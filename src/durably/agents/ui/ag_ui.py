"""A run in the AG-UI protocol, through pydantic-ai's adapter for it.

Owns what is asked in it, and the events for what only durable runs do: be taken back, and wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

from ag_ui.core import BaseEvent, CustomEvent, EventType, MessagesSnapshotEvent, RunAgentInput
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.ui import NativeEvent
from pydantic_ai.ui.ag_ui import AGUIAdapter, AGUIEventStream

from durably.agents.ui.asking import Asked, last_prompt
from durably.agents.ui.telling import Told, Waiting, Withdrawn

WAITING = "durably.waiting"


def read(body: bytes) -> tuple[RunAgentInput, Asked]:
    """What a chat asks for, and the same as a run.

    Raises:
        pydantic.ValidationError: it is no request of this protocol.
        ConfigError: its last message is no user's, or cannot be read.
    """
    given = AGUIAdapter.build_run_input(body)
    last = given.messages[-1:] if given.messages and given.messages[-1].role == "user" else []
    prompt = last_prompt(AGUIAdapter.load_messages, last)
    return given, Asked(thread=given.thread_id, message=last[0].id or "", prompt=prompt)


@dataclass
class DurableStream(AGUIEventStream[Any, Any]):
    """Writes a run."""

    async def handle_event(self, event: NativeEvent) -> AsyncIterator[BaseEvent]:
        told = cast("Told", event)
        if isinstance(told, Withdrawn):
            # The next part belongs to a message that the client does not know yet.
            self.new_message_id()
            yield self._snapshot(told.before)
        elif isinstance(told, Waiting):
            value = told.told or {"waits": None}
            yield CustomEvent(type=EventType.CUSTOM, name=WAITING, value=value)
        else:
            async for written in super().handle_event(event):
                yield written

    def _snapshot(self, before: tuple[ModelMessage, ...]) -> BaseEvent:
        """All messages that there are: the client forgets what it has seen of another."""
        asked = self.run_input.messages if self.run_input else []
        said = AGUIAdapter.dump_messages(_answers(before))
        return MessagesSnapshotEvent(type=EventType.MESSAGES_SNAPSHOT, messages=[*asked, *said])


def _answers(messages: tuple[ModelMessage, ...]) -> list[ModelMessage]:
    """What came after what the user said."""
    first = next((n for n, m in enumerate(messages) if isinstance(m, ModelResponse)), None)
    return [] if first is None else list(messages[first:])


def stream(given: RunAgentInput) -> DurableStream:
    """For one run's answer."""
    return DurableStream(given)
