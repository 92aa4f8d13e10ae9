"""Listening to what goes to a database, below everything that durably does: the drivers' own words.

Owns what a transaction looks like from there; leaves what is counted to `costs.transactions`.
"""

from __future__ import annotations

import re
import socket
import sqlite3
import struct
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from costs.transactions import Record
from durably.ledger.queries import load_queries
from support.costs import statement_of
from support.pg_proxy import PgProxy

BOUNDS = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
"""Statements that a transaction is made of."""

SETTING_UP = ("SHOW", "SET", "PRAGMA", "LISTEN", "SELECT set_config", "SELECT pg_notify")
"""How a connection begins, and how others are told: not counted outside of a transaction."""

LITERAL = r"(?:NULL|[-+.\de]+|'(?:[^']|'')*')"
"""How SQLite shows a parameter that is filled in."""

TIME = rf"durably_(?:now\(\)|after\((?:-?{LITERAL}|CAST\({LITERAL} AS DOUBLE PRECISION\))\))"
RETURNED = re.compile(r"\nRETURNING [\w, *]+$")
FILLED_IN = re.compile(
    r"durably_(?:now\(\)|after\((?:-?:\w+|CAST\(:\w+ AS DOUBLE PRECISION\))\))|:[a-z]\w*"
)
"""Parameters, and times, which may be parameters as well by the time they are asked for."""


def _begins(text: str, words: tuple[str, ...]) -> bool:
    return text.startswith(words)


def _shown(text: str) -> str:
    """A statement that is none of the ledger's, as far as it can be told from others."""
    return " ".join(text.replace(",", " ").split())[:40].strip()


# --- SQLite


@contextmanager
def sqlite_tap(record: Record) -> Generator[None]:
    """Record what every connection that is opened within the block does."""
    opened: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = opened(*args, **kwargs)
        connection.set_trace_callback(_SqliteTrace(connection, record))
        return connection

    with mock.patch("sqlite3.connect", connect):
        yield


class _SqliteTrace:
    """Called with each statement of one connection, its parameters filled in, before it is run."""

    def __init__(self, connection: sqlite3.Connection, record: Record) -> None:
        self._connection = connection
        self._record = record
        self._statements: list[str] = []
        self._reads = True

    def __call__(self, text: str) -> None:
        if text.startswith("BEGIN"):
            self._statements, self._reads = [], "IMMEDIATE" not in text
        elif text.startswith("COMMIT"):
            self._record.add(map(_sqlite_name, self._statements), reads=self._reads)
        elif not _begins(text, BOUNDS):
            self._note(text)

    def _note(self, text: str) -> None:
        if self._connection.in_transaction:
            self._statements.append(text)
        elif not _begins(text, SETTING_UP):
            self._record.add(map(_sqlite_name, [text]), reads=text.startswith("SELECT"))


def _sqlite_name(text: str) -> str:
    found = [
        name
        for name, beginning, pattern in _sqlite_patterns()
        if text.startswith(beginning) and pattern.fullmatch(text)
    ]
    return max(found, key=_literal_length, default=_shown(text))


@cache
def _sqlite_patterns() -> list[tuple[str, str, re.Pattern[str]]]:
    """Every statement: its name, how it begins, and how it reads with any parameters."""
    found: list[tuple[str, str, re.Pattern[str]]] = []
    for name, text in load_queries("sqlite").items():
        # Where rows are only counted, none are asked for.
        for asked in {text, RETURNED.sub("", text)}:
            parts = FILLED_IN.split(asked)
            pattern = re.compile(f"(?:{LITERAL}|{TIME})".join(map(re.escape, parts)))
            found.append((name, parts[0], pattern))
    return found


def _literal_length(name: str) -> int:
    return len(FILLED_IN.sub("", load_queries("sqlite")[name]))


# --- PostgreSQL


class PostgresTap(PgProxy):
    """Passes everything on, and records it: see PostgreSQL's docs, "Message Formats"."""

    def __init__(self, url: str, record: Record) -> None:
        self._record = record
        self._sessions: dict[int, _Session] = {}
        self._lock = threading.Lock()
        super().__init__(url)

    def _session(self, client: socket.socket) -> _Session:
        with self._lock:
            return self._sessions.setdefault(client.getpeername()[1], _Session(self._record))

    def _from_client(self, client: socket.socket, server: socket.socket) -> None:
        session = self._session(client)
        with client.makefile("rb") as stream:
            (length,) = struct.unpack("!I", start := stream.read(4))
            server.sendall(start + stream.read(length - 4))
            while head := stream.read(5):
                kind, length = struct.unpack("!cI", head)
                body = stream.read(length - 4)
                session.sent(kind, body)
                server.sendall(head + body)

    def _from_server(self, client: socket.socket, server: socket.socket) -> None:
        session = self._session(client)
        with server.makefile("rb") as stream:
            while head := stream.read(5):
                kind, length = struct.unpack("!cI", head)
                body = stream.read(length - 4)
                session.answered(kind, body)
                client.sendall(head + body)


class _Session:
    """One session: what the client asks, up to each point at which the server says where it is."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._prepared: dict[bytes, str] = {}
        self._asking: list[str] = []
        self._waits = 0
        self._asked: deque[tuple[list[str], int]] = deque()
        self._transaction: list[str] = []
        self._round_trips = 0
        self._wrote = False

    def sent(self, kind: bytes, body: bytes) -> None:
        """A message of the client's, before the server has it."""
        match kind:
            case b"Q":
                self._asking.append(body.rstrip(b"\0").decode())
            case b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text.decode()
            case b"B":
                self._asking.append(self._prepared[body.split(b"\0", 2)[1]])
            case b"H":
                self._waits += 1  # It asks for what there is, without an end.
            case _:
                pass
        if kind in (b"Q", b"S"):
            self._asked.append((self._asking, self._waits + 1))
            self._asking, self._waits = [], 0

    def answered(self, kind: bytes, body: bytes) -> None:
        """A message of the server's, before the client has it."""
        if kind == b"C" and re.match(rb"(INSERT|UPDATE|DELETE|MERGE)\b.* [1-9]", body):
            self._wrote = True
        if kind != b"Z" or not self._asked:
            return
        asked, waits = self._asked.popleft()
        self._transaction += asked
        self._round_trips += waits
        if body == b"I":
            self._over()

    def _over(self) -> None:
        texts, self._transaction = self._transaction, []
        round_trips, self._round_trips = self._round_trips, 0
        wrote, self._wrote = self._wrote, False
        inside = [text for text in texts if not _begins(text, BOUNDS)]
        begun = next((text for text in texts if text.startswith("BEGIN")), None)
        if begun is None and all(_begins(text, SETTING_UP) for text in inside):
            return
        wrote = wrote or any("INSERT INTO" in text for text in inside)
        reads = "READ ONLY" in begun if begun is not None else not wrote
        self._record.add(map(_postgres_name, inside), reads=reads, round_trips=round_trips)


def _postgres_name(text: str) -> str:
    return _postgres_names().get(text) or _shown(text)


@cache
def _postgres_names() -> dict[str, str]:
    return {statement_of(name)[0]: name for name in load_queries("postgres")}
