"""A run in the Vercel AI SDK's protocol, through pydantic-ai's adapter for it.

Owns what is asked in it, and the chunks for what only durable runs do: be taken back, and wait.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic_ai.messages import ModelMessage, ToolCallPart
from pydantic_ai.ui import NativeEvent
from pydantic_ai.ui.vercel_ai import VercelAIAdapter, VercelAIEventStream
from pydantic_ai.ui.vercel_ai.request_types import RegenerateMessage
from pydantic_ai.ui.vercel_ai.response_types import (
    BaseChunk,
    DataChunk,
    FinishStepChunk,
    StartStepChunk,
    ToolApprovalRequestChunk,
    ToolOutputErrorChunk,
)

from durably.agents.ui.asking import Asked, last_prompt
from durably.agents.ui.telling import Told, Waiting, Withdrawn

WITHDRAWN = "data-durably-withdrawn"
WAITING = "data-durably-waiting"

SdkVersion = Literal[5, 6]


def read(body: bytes) -> Asked:
    """What a chat asks for.

    Raises:
        pydantic.ValidationError: it is no request of this protocol.
        ConfigError: its last message is no user's, or cannot be read.
    """
    asked = VercelAIAdapter.build_run_input(body)
    last = asked.messages[-1] if asked.messages else None
    if isinstance(asked, RegenerateMessage):
        # The message that is to be answered again.
        users = [message for message in asked.messages if message.role == "user"]
        last = users[-1] if users else None
    said = [last] if last and last.role == "user" else []
    return Asked(
        thread=asked.id,
        message=last.id if last else "",
        prompt=last_prompt(VercelAIAdapter.load_messages, said),
        again=isinstance(asked, RegenerateMessage),
    )


def dumped(messages: Sequence[ModelMessage]) -> list[dict[str, Any]]:
    """Messages as a chat of this protocol begins with."""

    def numbered(_message: ModelMessage, role: str, number: int) -> str:
        return f"{role}-{number}"

    return [
        message.model_dump(mode="json", by_alias=True, exclude_none=True)
        for message in VercelAIAdapter.dump_messages(messages, generate_message_id=numbered)
    ]


@dataclass
class DurableStream(VercelAIEventStream[Any, Any]):
    """Writes a run."""

    async def handle_event(self, event: NativeEvent) -> AsyncIterator[BaseChunk]:
        told = cast("Told", event)
        if isinstance(told, Withdrawn):
            chunks = self._withdrawn(told)
        elif isinstance(told, Waiting):
            chunks = self._waiting(told)
        else:
            async for chunk in super().handle_event(event):
                yield chunk
            return
        for chunk in chunks:
            yield chunk

    def _withdrawn(self, told: Withdrawn) -> list[BaseChunk]:
        """This protocol cannot take back a part: what goes back to the last start of a step is
        marked, and a new step begins.
        """
        calls = [part for part in told.parts if isinstance(part, ToolCallPart)]
        return [
            *(
                ToolOutputErrorChunk(tool_call_id=call.tool_call_id, error_text="Taken back.")
                for call in calls
            ),
            DataChunk(type=WITHDRAWN, data={"reason": "The attempt that wrote this is over."}),
            FinishStepChunk(),
            StartStepChunk(),
        ]

    def _waiting(self, told: Waiting) -> list[BaseChunk]:
        chunks: list[BaseChunk] = [
            # With an id: the next one takes its place.
            DataChunk(type=WAITING, id="durably-waiting", data=told.told or {"waits": None})
        ]
        if self.sdk_version >= 6:
            chunks += [
                ToolApprovalRequestChunk(approval_id=call_id, tool_call_id=call_id)
                for call_id in told.approvals
            ]
        return chunks


def stream(message_id: str, sdk_version: SdkVersion) -> DurableStream:
    """For one run's answer, whose message has this id."""
    return DurableStream(server_message_id=message_id, sdk_version=sdk_version)
