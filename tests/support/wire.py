"""A network between a PostgreSQL driver and its server that fails at a chosen moment: a COMMIT.

Owns just enough of the protocol to see transactions and where they are committed (PostgreSQL docs,
"Message Formats"); leaves which of them are struck, and how, to the test.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from selectors import EVENT_READ, DefaultSelector
from typing import Any, Self
from urllib.parse import urlsplit

SYNC = b"S\0\0\0\4"
"""Ends what a prepared statement is sent in; the server answers then."""

STAND_STILL = b"SET LOCAL idle_in_transaction_session_timeout = 0\0"
"""Lets a transaction wait for a late COMMIT however slow the machine is: without it the server ends
one that stands still, and its COMMIT would come too late for anything."""


class Cut(Enum):
    """What becomes of a COMMIT and of the connection that it was to go over."""

    BEFORE = "it never reaches the server"
    AFTER = "the server commits, and its answer never arrives"
    LATE = "the client is cut off at once; the COMMIT arrives when `Network.deliver` is called"


@dataclass
class Strike:
    """The next cut.

    Attributes:
        how: see `Cut`.
        where: what a statement of the transaction looks like.
        spare: how many such transactions are let through first.
        for_good: whether the network goes down with it.
        done: set once it was struck.
        deliver: lets a late COMMIT through.
        delivered: set once the server has answered it.
    """

    how: Cut
    where: re.Pattern[str]
    spare: int = 0
    for_good: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    deliver: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)


class Network:
    """Listens on a port of its own and passes everything on, but for what it strikes.

    Attributes:
        commits: the statements of every transaction that was let through, in order.
        refused: how many connections were refused while `down` was set.
    """

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._strikes: list[Strike] = []
        self._open: set[socket.socket] = set()
        self.commits: list[list[str]] = []
        self.down = threading.Event()
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for strike in self._strikes:
            strike.deliver.set()
        self._listener.close()
        self.cut_all()

    @property
    def url(self) -> str:
        """The server's URL, by way of this network."""
        login, at, _ = self._server.netloc.rpartition("@")
        port = self._listener.getsockname()[1]
        return self._server._replace(netloc=f"{login}{at}127.0.0.1:{port}").geturl()

    def strike(self, how: Cut, where: str, *, spare: int = 0, for_good: bool = False) -> Strike:
        """Cut the connection at the COMMIT of the next transaction with such a statement."""
        pattern = re.compile(where, re.DOTALL | re.IGNORECASE)
        strike = Strike(how, pattern, spare, for_good)
        with self._lock:
            self._strikes.append(strike)
        return strike

    def go_down(self) -> None:
        """Cut every connection, and refuse new ones until `down` is cleared."""
        self.down.set()
        self.cut_all()

    def cut_all(self) -> None:
        """Cut every connection."""
        with self._lock:
            self._cut_all()

    def _cut_all(self) -> None:
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.down.is_set():
                self.refused += 1
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        assert self._server.hostname, "a URL with a host"
        address = (self._server.hostname, self._server.port or 5432)
        with client, socket.create_connection(address) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, server}
            try:
                with suppress(OSError):
                    _Wire(client, server, self._struck).pump()
            finally:
                with self._lock:
                    self._open -= {client, server}

    def _struck(self, statements: list[str]) -> Strike | None:
        with self._lock:
            for strike in self._strikes:
                if any(strike.where.search(text) for text in statements):
                    if strike.spare:
                        strike.spare -= 1
                    else:
                        self._strikes.remove(strike)
                        if strike.for_good:
                            self.down.set()
                            self._cut_all()
                        return strike
            self.commits.append(statements)
        return None


class _Wire:
    """One connection, both directions."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        struck: Callable[[list[str]], Strike | None],
    ) -> None:
        self._client = client
        self._server = server
        self._struck = struck
        self._waiting = b""
        self._started = False
        self._prepared: dict[str, str] = {}
        self._statements: list[str] = []
        self._within = self._lone = False

    def pump(self) -> None:
        """Pass on what comes, until either side hangs up or the wire is cut."""
        with DefaultSelector() as ready:
            ready.register(self._client, EVENT_READ)
            ready.register(self._server, EVENT_READ)
            while True:
                for key, _ in ready.select():
                    end: Any = key.fileobj
                    data = end.recv(65_536)
                    if not data:
                        return
                    if end is self._server:
                        self._client.sendall(data)
                    elif not self._pass_on(data):
                        return

    def _pass_on(self, data: bytes) -> bool:
        """Send the client's messages to the server; False once the wire is cut."""
        self._waiting += data
        while (message := self._next()) is not None:
            if self._is_commit(message):
                statements, self._statements = self._statements, []
                strike = self._struck(statements)
                if strike is not None:
                    self._cut(strike, message)
                    return False
            self._server.sendall(message)
        return True

    def _next(self) -> bytes | None:
        # A message begins with its kind and its length; those before a session is agreed on, with
        # their length alone.
        start = 1 if self._started else 0
        if len(self._waiting) < start + 4:
            return None
        (length,) = struct.unpack_from("!i", self._waiting, start)
        if len(self._waiting) < start + length:
            return None
        message, self._waiting = (
            self._waiting[: start + length],
            self._waiting[start + length :],
        )
        if not self._started:
            (version,) = struct.unpack_from("!i", message, 4)
            self._started = version >> 16 == 3
        return message

    def _is_commit(self, message: bytes) -> bool:
        """Whether this message commits; also notes which statements the transaction has."""
        kind, body = message[:1], message[5:]
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            self._prepared[name.decode()] = text.decode(errors="replace")
            return False
        if kind == b"Q":
            text = body.rstrip(b"\0").decode(errors="replace")
        elif kind == b"B":
            text = self._prepared[body.split(b"\0", 2)[1].decode()]
        else:
            return False
        if text.strip().upper() == "COMMIT":
            self._within = self._lone = False
            return True
        if text.startswith(("BEGIN", "ROLLBACK")):
            self._statements = []
            self._within = text.startswith("BEGIN") and not text.endswith("COMMIT")
        self._statements.append(text)
        # Outside of a transaction a statement is one.
        self._lone = not self._within and "INSERT INTO" in text
        return self._lone

    def _cut(self, strike: Strike, message: bytes) -> None:
        while message[:1] == b"B" and SYNC not in self._waiting:
            self._waiting += self._client.recv(65_536)
        if strike.how is Cut.LATE:
            self._hang_up()
            if not self._lone:
                self._server.sendall(b"Q" + struct.pack("!i", 4 + len(STAND_STILL)) + STAND_STILL)
                self._wait_for_answer()
            strike.done.set()
            strike.deliver.wait()
        if strike.how is not Cut.BEFORE:
            self._server.sendall(message + self._waiting)
            self._wait_for_answer()
            strike.delivered.set()
        self._hang_up()
        strike.done.set()

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_RDWR)
        self._client.close()

    def _wait_for_answer(self) -> None:
        """Read until the server is ready for the next query, or has hung up."""
        answer = b""
        while True:
            while len(answer) >= 5:
                (length,) = struct.unpack_from("!i", answer, 1)
                if len(answer) < 1 + length:
                    break
                if answer[:1] == b"Z":
                    return
                answer = answer[1 + length :]
            data = self._server.recv(65_536)
            if not data:
                return
            answer += data
