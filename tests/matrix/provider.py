"""A provider on loopback that speaks OpenAI's chat protocol, and fails as it is told to.

Owns what goes over the wire, and counts what it was asked; runs and agents are `faulty_models`'.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RETRY_AFTER_SECONDS = 3
"""What the provider asks for with 429."""

SCRIPT = ("charge", "mail", "All is well.")
"""What the model answers: a call of each tool, and its last word; by how far the history is."""


class Provider:
    """Answers every run by the script, except where its model's name says how to fail.

    The name is ``FAULT@NUMBER``: the request that fails, once; with ``!`` at its end, each time
    until `heal`.
    """

    def __init__(self, port: int = 0) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()
        self.healed = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def heal(self) -> None:
        """Answer everything from now on, also what hangs."""
        self.healed.set()

    def note(self, model: str, number: int) -> str | None:
        """Count a request; how it is to fail, or None."""
        with self._lock:
            self.asked[model, number] += 1
            times = self.asked[model, number]
        fault, _, where = model.rpartition("@")
        if number != int(where.rstrip("!")) or self.healed.is_set():
            return None
        return fault if times == 1 or where.endswith("!") else None

    @contextmanager
    def serving(self) -> Iterator[Provider]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.heal()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _handler(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            # What the model said and was asked to say again is no step of the script's.
            number = sum(_is_step(message) for message in asked["messages"])
            fault = provider.note(asked["model"], number)
            streams = bool(asked.get("stream"))
            if fault is None:
                self._answer(asked["model"], _message(SCRIPT[number], number), streams)
            else:
                getattr(self, f"_{fault.replace(' ', '_')}")(asked["model"], number, streams)

        # --- faults

        def _429(self, model: str, number: int, streams: bool) -> None:
            self._refuse(429, {"retry-after": str(RETRY_AFTER_SECONDS)})

        def _500(self, model: str, number: int, streams: bool) -> None:
            self._refuse(500, {})

        def _401(self, model: str, number: int, streams: bool) -> None:
            self._refuse(401, {})

        def _no_JSON(self, model: str, number: int, streams: bool) -> None:
            self._send(200, b'{"id": "half an ans', "application/json")

        def _a_page(self, model: str, number: int, streams: bool) -> None:
            self._send(200, b"<html>Bad gateway</html>", "text/html")

        def _no_choices(self, model: str, number: int, streams: bool) -> None:
            self._send(200, json.dumps({"id": "x", "error": "none"}).encode(), "application/json")

        def _nonsense(self, model: str, number: int, streams: bool) -> None:
            body = {"choices": [{"message": {"role": 7, "tool_calls": "many"}}], "usage": "much"}
            self._send(200, json.dumps(body).encode(), "application/json")

        def _bad_args(self, model: str, number: int, streams: bool) -> None:
            self._answer(model, _call("charge", '{"cents": "all of them"}', "bad"), streams)

        def _args_that_are_no_JSON(self, model: str, number: int, streams: bool) -> None:
            self._answer(model, _call("charge", '{"cents": ', "bad"), streams)

        def _unknown_tool(self, model: str, number: int, streams: bool) -> None:
            self._answer(model, _call("destroy", "{}", "bad"), streams)

        def _empty(self, model: str, number: int, streams: bool) -> None:
            self._answer(model, {"role": "assistant", "content": ""}, streams)

        def _reset(self, model: str, number: int, streams: bool) -> None:
            # RST instead of an answer.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            os.close(self.connection.detach())

        def _cut_off(self, model: str, number: int, streams: bool) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "5000")
            self.end_headers()
            self.wfile.write(b'{"id": ')
            self.close_connection = True

        def _hangs(self, model: str, number: int, streams: bool) -> None:
            provider.healed.wait()
            self.close_connection = True

        def _broken_stream(self, model: str, number: int, streams: bool) -> None:
            assert streams
            self._begin_stream()
            delta = {"role": "assistant", "content": "Half a message, "}
            self._chunk(_chunk(model, delta))
            self.close_connection = True  # Without the last chunk: it is cut off.

        # --- answers

        def _answer(self, model: str, message: dict[str, Any], streams: bool) -> None:
            calls = message.get("tool_calls")
            end = "tool_calls" if calls else "stop"
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            if not streams:
                choice = {"index": 0, "message": message, "finish_reason": end}
                body = {"id": "a", "object": "chat.completion", "created": 1, "model": model}
                body |= {"choices": [choice], "usage": usage}
                self._send(200, json.dumps(body).encode(), "application/json")
                return
            self._begin_stream()
            for index, made in enumerate(calls or ()):
                made["index"] = index
            self._chunk(_chunk(model, message))
            self._chunk(_chunk(model, {}, end))
            self._chunk({**_chunk(model, {}), "choices": [], "usage": usage})
            self._write(b"data: [DONE]\n\n")
            self._write(b"")

        def _refuse(self, status: int, headers: dict[str, str]) -> None:
            body = json.dumps({"error": {"message": f"as you wish: {status}"}}).encode()
            self._send(status, body, "application/json", headers)

        def _send(
            self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _begin_stream(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()

        def _chunk(self, data: dict[str, Any]) -> None:
            self._write(f"data: {json.dumps(data)}\n\n".encode())

        def _write(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    return Handler


def _is_step(message: dict[str, Any]) -> bool:
    calls = message.get("tool_calls") or ()
    return message["role"] == "assistant" and any(call["id"].startswith("ok") for call in calls)


def _message(step: str, number: int) -> dict[str, Any]:
    if step.endswith("."):
        return {"role": "assistant", "content": step}
    return _call(step, '{"cents": 100}', f"ok_{number}")


def _call(tool: str, args: str, call_id: str) -> dict[str, Any]:
    function = {"name": tool, "arguments": args}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _chunk(model: str, delta: dict[str, Any], end: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": end}
    return {
        "id": "a",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [choice],
    }
