"""A provider on the other end of a real wire: what it is to answer, and what it was asked.

Owns the process; what happens in it is `wire.mock`'s, and for the most part llmock's.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import httpx

from wire.mock import ODDITY, RELEASE

PATIENCE_SECONDS = 300.0


class Provider:
    """Its port is taken at once, and refuses connections until `start`.

    Attributes:
        url: without the path that a client adds, which names the protocol.
        log: what the process says.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_SECONDS)

    def start(self) -> Self:
        """Accept connections from now on."""
        self._socket.listen()
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wire.mock", str(self._socket.fileno())],
                pass_fds=[self._socket.fileno()],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdout=log,
                stderr=log,
            )
        return self

    def reset(self) -> None:
        """Forget what was asked, and what was to be answered."""
        _post(f"{self.url}/_llmock/reset", {})

    def will(self, *behaviors: dict[str, Any]) -> None:
        """Have the next requests answered so; see `says`, `calls`, `fails` and the others below."""
        script(self.url, *behaviors)

    def release(self) -> None:
        """Let an answer that `holds` go on."""
        _post(f"{self.url}{RELEASE}", {})

    def requests(self) -> list[dict[str, Any]]:
        """What it was asked, in order: its status, and whether all of the answer was sent."""
        answer = httpx.get(f"{self.url}/_llmock/requests", timeout=PATIENCE_SECONDS)
        return answer.raise_for_status().json()["requests"]

    def statuses(self) -> list[int]:
        return [request["status"] for request in self.requests()]

    def findings(self) -> list[str]:
        """What the client did wrong with the faults that it met, in llmock's own judgement."""
        answer = httpx.get(f"{self.url}/_llmock/verdict", timeout=PATIENCE_SECONDS)
        found = answer.raise_for_status().json()["findings"]
        return [finding["code"] for finding in found if finding["severity"] == "error"]


def script(url: str, *behaviors: dict[str, Any]) -> None:
    """Tell a provider what to answer; also from where only its URL is known."""
    for behavior in behaviors:
        if behavior["type"] == "odd":
            _post(f"{url}{ODDITY}", behavior)
        else:
            _post(f"{url}/_llmock/scenario", {"behaviors": [behavior]})


def _post(url: str, body: dict[str, Any]) -> None:
    httpx.post(url, json=body, timeout=PATIENCE_SECONDS).raise_for_status()


# --- what it is to do


def says(text: str) -> dict[str, Any]:
    return {"type": "reply", "text": text}


def calls(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "reply", "tool_calls": [{"name": tool, "arguments": arguments}]}


def fails(status: int, **options: Any) -> dict[str, Any]:
    """``times`` is 1 by default, None for ever; also ``retry_after``, in seconds."""
    return {"type": "fail", "status": status, **options}


def breaks(how: str, after: int, **options: Any) -> dict[str, Any]:
    """Break a stream after so many chunks: disconnect, truncate, malformed, or stall."""
    return {"type": "stream_fault", "kind": how, "after_chunks": after, **options}


def hangs(seconds: float) -> dict[str, Any]:
    return {"type": "delay", "seconds": seconds}


def holds(before: int) -> dict[str, Any]:
    """Stop the next answer before this chunk, counted from one, until it is released."""
    return {"type": "odd", "hold": before}


def odd(**oddity: Any) -> dict[str, Any]:
    """Change the next answer (see `wire.mock.Oddities`)."""
    return {"type": "odd", **oddity}
