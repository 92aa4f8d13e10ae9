"""The capability that shows messages while they are made, to whoever watches the run.

Owns which event belongs to which message; writing them is the feed's (`execution.feed`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.messages import (
    AgentStreamEvent,
    FinalResultEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
)

from durably.agents.attempt import AttemptState
from durably.agents.live import event_to_json, length_of
from durably.execution.feed import Feed

log = logging.getLogger(__name__)

_OF_THE_MODEL = (PartStartEvent, PartDeltaEvent, PartEndEvent, FinalResultEvent)


@dataclass
class _Stream:
    """One stream of events: of a model's response, or of the calls that one asked for.

    Attributes:
        message: the position of the message that it forms; None before its first event.
        highest: the highest index of a part that has begun.
    """

    message: int | None = None
    highest: int = -1


@dataclass
class Showing(AbstractCapability[Any]):
    """Outermost: it shows what others make of the events, and changes none itself."""

    state: AttemptState | None = None
    feed: Feed | None = None

    def get_ordering(self) -> CapabilityOrdering:
        return CapabilityOrdering(position="outermost")

    async def wrap_run_event_stream(
        self, ctx: RunContext[Any], *, stream: AsyncIterable[AgentStreamEvent]
    ) -> AsyncIterable[AgentStreamEvent]:
        shown = _Stream()
        try:
            async for event in stream:
                self._show(ctx, shown, event)
                yield event
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def _show(self, ctx: RunContext[Any], stream: _Stream, event: AgentStreamEvent) -> None:
        assert self.state is not None and self.feed is not None, "made by the runner"
        state, feed, of_model = self.state, self.feed, isinstance(event, _OF_THE_MODEL)
        if of_model and not state.asking:
            return  # Of a response that is in the ledger: it is handed back, event by event.
        if stream.message is None:
            stream.message = state.journal.length + len(state.unsaved(ctx.messages))
            if state.asking:
                if state.shown is not None:
                    feed.ask_again(state.shown)
                state.shown = stream.message
        if isinstance(event, PartStartEvent):
            if event.index == 0 and stream.highest > 0:
                feed.ask_again(stream.message)
                stream.highest = -1
            stream.highest = max(stream.highest, event.index)
        try:
            piece = event_to_json(event)
        except ValueError as error:
            if of_model:
                feed.give_up(str(error))
            else:
                log.debug("run %r: an event is not shown: %s", state.journal.run.key, error)
        else:
            feed.add(stream.message, piece, length_of(piece))
