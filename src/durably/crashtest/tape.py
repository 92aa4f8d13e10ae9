"""A model's responses: recorded where the run is recorded, played where it is crashed.

Owns which response comes next: by how far the run's history is, so that a process that takes over
goes on where the saved history ends, whatever its request says.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, ModelResponseStreamEvent, TextPart
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from durably.agents.history import message_from_json, message_to_json
from durably.crashtest.notes import RUN, Notes
from durably.errors import DurablyError
from durably.execution.journal import Journal

PIECES = 4
"""In how many pieces a text is streamed."""

PAUSE_SECONDS = 0.06
"""Between two pieces: longer than it takes to show one, so that crashes fall between."""


class Unrecorded(DurablyError):
    """The run asked for a response that the recorded run never asked for."""


class Tape:
    """The responses of a run, and of those that it starts, in a file."""

    def __init__(self, path: Path, notes: Notes) -> None:
        self._path = path
        self._notes = notes
        self._played: dict[tuple[str, int], str] | None = None

    def recorder(self, model: Model | str, journal: Journal) -> Model:
        """The model, with every response kept."""
        return Recorder(model, self, journal)

    def player(self, model: Model | str, journal: Journal) -> Model:
        """The recorded responses in the place of the model, which is never asked."""
        return Player(model, self, journal)

    def asked(self, journal: Journal) -> int:
        """Note a request; returns how many responses the run has so far."""
        number = journal.responses
        self._notes.write("asked", run=journal.run.key, number=number)
        return number

    def keep(self, journal: Journal, number: int, response: ModelResponse) -> None:
        """Record a response."""
        body = message_to_json(response).replace(self._notes.key, RUN)
        run = journal.run.key.replace(self._notes.key, RUN)
        line = json.dumps({"run": run, "number": number, "response": body})
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, f"{line}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)

    def response(self, journal: Journal, number: int) -> ModelResponse:
        """The recorded response at this place, with this run's key where it had its own.

        Raises:
            Unrecorded: there is none.
        """
        if self._played is None:
            lines = map(json.loads, self._path.read_text("utf-8").splitlines())
            self._played = {(line["run"], line["number"]): line["response"] for line in lines}
        run = journal.run.key.replace(self._notes.key, RUN)
        body = self._played.get((run, number))
        if body is None:
            raise Unrecorded(
                f"Run {run!r} asks for response {number + 1}, and the recorded one had none: it "
                "has gone another way."
            )
        found = message_from_json(body.replace(RUN, self._notes.key))
        assert isinstance(found, ModelResponse), "only responses are recorded"
        return found


class _OnTape(WrapperModel):
    """A run's model, with the tape of its responses; is otherwise taken for the model itself."""

    def __init__(self, wrapped: Model | str, tape: Tape, journal: Journal) -> None:
        super().__init__(wrapped)
        self._tape = tape
        self._journal = journal


class Recorder(_OnTape):
    """Passes requests on, and keeps the responses."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        number = self._tape.asked(self._journal)
        response = await super().request(messages, model_settings, model_request_parameters)
        self._tape.keep(self._journal, number, response)
        return response

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        number = self._tape.asked(self._journal)
        async with super().request_stream(
            messages, model_settings, model_request_parameters, run_context
        ) as stream:
            yield stream
            # Whoever asked has read it to its end by now.
            self._tape.keep(self._journal, number, stream.get())


class Player(_OnTape):
    """Answers with what is recorded."""

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        return self._next()

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        yield Played(model_request_parameters, self._next())

    async def count_tokens(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> RequestUsage:
        return RequestUsage()  # A provider would count them, and none is asked here.

    def _next(self) -> ModelResponse:
        number = self._tape.asked(self._journal)
        return self._tape.response(self._journal, number)


@dataclass
class Played(StreamedResponse):
    """A recorded response, as a stream."""

    recorded: ModelResponse

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        manager = self._parts_manager
        for index, part in enumerate(self.recorded.parts):
            if not isinstance(part, TextPart) or len(part.content) < PIECES:
                yield manager.handle_part(vendor_part_id=index, part=part)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            size = -(-len(part.content) // PIECES)
            for start in range(0, len(part.content), size):
                piece = part.content[start : start + size]
                for event in manager.handle_text_delta(vendor_part_id=index, content=piece):
                    yield event
                await asyncio.sleep(PAUSE_SECONDS)

    def get(self) -> ModelResponse:
        return self.recorded

    async def close_stream(self) -> None:
        """There is nothing to close."""

    @property
    def usage(self) -> RequestUsage:
        return self.recorded.usage

    @property
    def model_name(self) -> str:
        return self.recorded.model_name or ""

    @property
    def provider_name(self) -> str | None:
        return self.recorded.provider_name

    @property
    def provider_url(self) -> str | None:
        return self.recorded.provider_url

    @property
    def timestamp(self) -> datetime:
        return self.recorded.timestamp
