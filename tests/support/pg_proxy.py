"""A TCP proxy before a PostgreSQL server that can swallow messages, or cut connections."""

from __future__ import annotations

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

COMPLETE = b"C"
READY = b"Z"
NOTIFICATION = b"A"
KEY_DATA = b"K"


class PgProxy:
    """Passes everything on, except for what `swallow` names.

    Attributes:
        url: the database's, by way of this proxy.
        swallow: types of the server's messages that never arrive (PostgreSQL docs, "Message
            Formats"). Without notifications it is as deaf as a pooler in transaction mode.
        passed: how many messages of each type have been passed on to clients.
        poses: whether it tells clients about server processes of its own making, as poolers do.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._door = socket.create_server(("127.0.0.1", 0))
        port = self._door.getsockname()[1]
        login = parts.netloc.rpartition("@")[0]
        query = "&".join(q for q in (parts.query, "sslmode=disable", "gssencmode=disable") if q)
        self.url = parts._replace(netloc=f"{login}@127.0.0.1:{port}", query=query).geturl()
        self.swallow: set[bytes] = set()
        self.passed: Counter[bytes] = Counter()
        self.poses = False
        self._open: list[socket.socket] = []
        self._cutting: dict[int, Literal["request", "answer"]] = {}
        threading.Thread(target=self._welcome, daemon=True).start()

    def __enter__(self) -> PgProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()
        self.cut()

    def cut(self) -> None:
        """End every connection there is, on both sides, without a word."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut_at_commit(self, port: int, lost: Literal["request", "answer"]) -> None:
        """End the connection that the client has at this port: what it sends next is a commit.

        Args:
            lost: the request does not come to the server, which takes everything back; or its
                answer does not come to the client, and everything is committed.
        """
        self._cutting[port] = lost

    def _welcome(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            for work in (self._from_client, self._from_server):
                threading.Thread(target=self._carry, args=(work, client, server)).start()

    def _carry(
        self, work: Callable[[socket.socket, socket.socket], None], *ends: socket.socket
    ) -> None:
        with suppress(OSError, EOFError):
            work(*ends)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _from_client(self, client: socket.socket, server: socket.socket) -> None:
        port = client.getpeername()[1]
        while data := client.recv(65536):
            if self._cutting.get(port) == "request":
                raise EOFError
            server.sendall(data)

    def _from_server(self, client: socket.socket, server: socket.socket) -> None:
        port = client.getpeername()[1]
        held: list[tuple[bytes, bytes]] = []
        with server.makefile("rb") as stream:
            while head := stream.read(5):
                kind, length = struct.unpack("!cI", head)
                body = stream.read(length - 4)
                if kind == KEY_DATA and self.poses:
                    body = struct.pack("!I", 1_000_000) + body[4:]
                held.append((kind, head + body))
                if self._cutting.get(port) == "answer":
                    if kind != READY:
                        continue
                    # Else it was another one, as to a statement that was prepared before.
                    if any(kind == COMPLETE for kind, _ in held):
                        raise EOFError
                for passed, message in held:
                    if passed not in self.swallow:
                        client.sendall(message)
                        self.passed[passed] += 1
                held.clear()
