"""The provider as a process: llmock's server, ``python -m wire.mock FD``, on a socket that is open.

The protocols, the faults and the journal are llmock's. Owns what providers do and llmock does not:
other spellings of Retry-After, an error in the middle of a stream, and a pause as long as it takes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from llmock.main import create_app

type Message = MutableMapping[str, Any]
type Send = Callable[[Message], Awaitable[None]]
type Receive = Callable[[], Awaitable[Message]]
type App = Callable[[Message, Receive, Send], Awaitable[None]]

ODDITY, RELEASE = "/_odd", "/_release"


class Oddities:
    """Answers of an application, each changed by the oldest oddity that was posted.

    One is JSON: ``headers``, which replace those of the answer with ``retry-after`` in their name;
    ``chunk`` and ``event``, the text that is sent in the place of that chunk, after which nothing
    comes; ``hold``, the chunk before which it stops until it is released.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._waiting: list[dict[str, Any]] = []
        self._released = asyncio.Event()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == ODDITY:
            self._waiting.append(json.loads((await receive())["body"]))
            self._released.clear()
            await _accept(send)
        elif path == RELEASE:
            self._released.set()
            await _accept(send)
        elif path.startswith("/_llmock") or not self._waiting:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, _odd(self._waiting.pop(0), send, self._released))


async def _accept(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _odd(oddity: dict[str, Any], send: Send, released: asyncio.Event) -> Send:
    chunks = 0

    async def changed(message: Message) -> None:
        nonlocal chunks
        if message["type"] == "http.response.start" and "headers" in oddity:
            kept = [pair for pair in message["headers"] if b"retry-after" not in pair[0].lower()]
            new = [(name.encode(), value.encode()) for name, value in oddity["headers"].items()]
            message = {**message, "headers": [*kept, *new]}
        if message["type"] == "http.response.body":
            chunks += 1
            if chunks == oddity.get("hold"):
                await released.wait()
            if chunks > oddity.get("chunk", chunks):
                return
            if chunks == oddity.get("chunk"):
                message = {**message, "body": oddity["event"].encode(), "more_body": False}
        await send(message)

    return changed


def main() -> None:
    # The socket listens before this process is there: whoever connects meanwhile only waits.
    listening = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(Oddities(create_app()), log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
