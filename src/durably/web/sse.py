"""Server-sent events: a stream of them that says when it lives, and ends with whom it is for.

Owns the wire format and the end of a stream; what is in it is its sender's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, NamedTuple

from starlette.responses import StreamingResponse

HEARTBEAT_SECONDS = 15.0
"""How often a stream without news says that it lives: proxies end one that is silent."""

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has many
    "X-Content-Type-Options": "nosniff",
}


class ServerEvent(NamedTuple):
    """One event, as browsers' EventSource has it.

    Attributes:
        data: what it says; of several lines, each is sent as one.
        event: its type; empty: ``message``.
        id: what a reader that comes back says it has seen; empty: none.
    """

    data: str
    event: str = ""
    id: str = ""

    def encoded(self) -> bytes:
        """As it is sent."""
        lines = [f"id: {self.id}"] if self.id else []
        lines += [f"event: {_one_line(self.event)}"] if self.event else []
        lines += [f"data: {line}" for line in _lines(self.data)]
        return ("\n".join(lines) + "\n\n").encode("utf-8", "backslashreplace")


def event_stream(
    events: AsyncGenerator[ServerEvent | str],
    stopping: asyncio.Event,
    *,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
    headers: dict[str, str] | None = None,
) -> StreamingResponse:
    """A response that sends events as they come, until they end or the server stops.

    If its reader goes away, ``events`` are closed.

    Args:
        events: or texts, which are events as they are sent.
    """
    body = _encoded(_paced(events, stopping, heartbeat_seconds))
    return StreamingResponse(
        body, media_type="text/event-stream", headers=HEADERS | (headers or {})
    )


async def _encoded(paced: AsyncGenerator[ServerEvent | str | None]) -> AsyncGenerator[bytes]:
    """As it is sent; something at once, so that a reader knows it is connected."""
    async with aclosing(paced):
        yield b": connected\n\n"
        async for piece in paced:
            if isinstance(piece, ServerEvent):
                yield piece.encoded()
            else:
                yield (piece or ": alive\n\n").encode("utf-8", "backslashreplace")


async def _paced(
    events: AsyncGenerator[ServerEvent | str], stopping: asyncio.Event, heartbeat_seconds: float
) -> AsyncGenerator[ServerEvent | str | None]:
    """The events, and None whenever there was none for a while."""
    handed: asyncio.Queue[ServerEvent | str] = asyncio.Queue(1)

    async def pump() -> None:
        # All of it in one task: what is opened while they are made is closed where it was.
        async with aclosing(events):
            async for event in events:
                await handed.put(event)

    pumping = asyncio.create_task(pump())
    stop = asyncio.ensure_future(stopping.wait())
    following: asyncio.Future[ServerEvent | str] | None = None
    try:
        while not stop.done():
            following = following or asyncio.ensure_future(handed.get())
            waited: set[asyncio.Future[Any]] = {stop, following, pumping}
            await asyncio.wait(
                waited, timeout=heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if following.done():
                event, following = following.result(), None
                yield event
            elif pumping.done() and handed.empty():
                pumping.result()  # Raises what it was that ended them.
                return
            elif not stop.done() and not pumping.done():
                yield None
    finally:
        for task in (stop, pumping, following):
            if task is not None:
                task.cancel()
        await asyncio.wait({pumping})


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _one_line(text: str) -> str:
    return " ".join(_lines(text))
