"""A web application on a real uvicorn, in a thread of the test's process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

PATIENCE_SECONDS = 100.0


@contextmanager
def serving(api: Any, **options: Any) -> Iterator[str]:
    """Serve an ASGI application on loopback; yields its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        api, log_config=None, lifespan="on", timeout_graceful_shutdown=5, **options
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        waited = threading.Event()
        for _ in range(int(PATIENCE_SECONDS * 100)):
            if server.started or not thread.is_alive():
                break
            waited.wait(0.01)
        assert server.started, "the server did not start"
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_SECONDS)
        listening.close()
        assert not thread.is_alive(), "the server does not stop"
