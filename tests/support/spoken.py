"""A model that streams what a test lets it say, piece by piece, and a watcher that sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingCalls,
    DeltaThinkingPart,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)

from durably import Draft, Event, Run
from support.ledgers import PATIENCE_SECONDS

type Piece = str | DeltaToolCalls | DeltaThinkingCalls | Exception | Callable[[], Awaitable[object]]
"""What a stream holds: text, a piece of a call, of thinking; an error; something to wait for."""


class Spoken:
    """A model that streams its next list of pieces at each request."""

    def __init__(self, *responses: list[Piece]) -> None:
        self.responses = list(responses)
        self.requests: list[int] = []
        self.model = FunctionModel(stream_function=self._stream, model_name="spoken")

    async def _stream(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | DeltaToolCalls | DeltaThinkingCalls]:
        self.requests.append(sum(isinstance(m, ModelResponse) for m in messages))
        for piece in self.responses.pop(0):
            if isinstance(piece, Exception):
                raise piece
            if callable(piece):
                await piece()
            else:
                yield piece


def call_piece(name: str | None, args: str, index: int = 1) -> DeltaToolCalls:
    return {index: DeltaToolCall(name, args, tool_call_id=f"call_{index}")}


def thought(text: str) -> DeltaThinkingCalls:
    return {0: DeltaThinkingPart(content=text)}


class Onlooker:
    """Somebody who watches a run, and what they saw.

    Attributes:
        events: all of them, in order.
        texts: the draft's text after each event that changed it.
    """

    def __init__(self, draft: Draft | None = None) -> None:
        self.draft = draft or Draft()
        self.events: list[Event] = []
        self.texts: list[str] = []
        self._changed = asyncio.Condition()

    async def watch(self, run: Run[Any], after: int = 0) -> None:
        async for event in run.watch(after):
            await self.take(event)

    async def take(self, event: Event) -> None:
        self.events.append(event)
        if self.draft.apply(event):
            self.texts.append(self.draft.text)
        async with self._changed:
            self._changed.notify_all()

    def sees(self, condition: Callable[[Draft], object]) -> Callable[[], Awaitable[object]]:
        """For a model's stream: go on once this is seen."""

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
                await self._changed.wait_for(lambda: condition(self.draft))

        return wait

    def saw(self, kind: str) -> Callable[[], Awaitable[object]]:
        """For whoever waits until there is an event of this kind."""
        return self.sees(lambda _: any(event.kind == kind for event in self.events))

    @property
    def kinds(self) -> list[str]:
        """The kinds of its events; deltas that follow each other as one."""
        kinds = [event.kind for event in self.events]
        return [k for i, k in enumerate(kinds) if k != "delta" or kinds[i - 1 : i] != ["delta"]]
