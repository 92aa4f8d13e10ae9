"""Cuts the connection of one commit of PostgreSQL's, in the process that commits.

Owns which commit it is, by what it is for; how a connection is cut is `PgProxy`'s.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import psycopg

from crash.children import Strike
from durably.ledger.postgres.pipeline import Pipeline
from support.pg_proxy import PgProxy

type Lost = Literal["request", "answer"]
"""Of a commit: nothing is committed, or everything is. The client cannot tell."""

KINDS = ("checkpoint", "intent", "outcome", "wait", "child", "settle", "decision", "end")
"""What a commit is for: the boundaries around it."""


class Commits:
    """Sees every commit of the ledger's, and cuts one.

    Attributes:
        doing: what a commit is for that no boundary is around; None: nothing to be cut.
        seen: what each commit was for, and how many of that kind there were with it.
        has_cut: whether the one to be cut has come.
    """

    def __init__(self, proxy: PgProxy, strike: Strike | None, lost: Lost) -> None:
        self.doing: str | None = None
        self.seen: list[tuple[str, int]] = []
        self.has_cut = False
        self._proxy, self._strike, self._lost = proxy, strike, lost
        self._open: list[str] = []
        self._counts: Counter[str] = Counter()
        self._here = threading.local()

    def note(self, name: str) -> None:
        """The observer of boundaries."""
        kind, _, when = name.partition(":")
        if kind in KINDS and when == "before":
            self._open.append(kind)
        elif kind in KINDS and when == "after":
            self._open.remove(kind)
        elif name == "transaction:before_commit":
            self._comes("transaction")
        elif name == "commit:before" and _writes() and (found := self._doing()):
            self._comes(found)

    def _doing(self) -> str | None:
        return self._open[-1] if self._open else self.doing

    def _comes(self, kind: str) -> None:
        self._counts[kind] += 1
        self.seen.append((kind, self._counts[kind]))
        if self._strike == Strike(kind, self._counts[kind]):
            self._here.cuts = True

    def look_at_every_commit(self) -> None:
        """Learn which connection commits: the one that this thread uses next."""
        for connecting in (psycopg.Connection, psycopg.AsyncConnection):
            connecting.wait = self._telling(connecting.wait)  # type: ignore[method-assign]
        Pipeline.send = self._telling(Pipeline.send)  # type: ignore[method-assign]

    def _telling(self, use: Callable[..., Any]) -> Callable[..., Any]:
        def telling(connection: Any, *args: Any, **options: Any) -> Any:
            if getattr(self._here, "cuts", False):
                self._here.cuts = False
                self.has_cut = True
                self._proxy.cut_at_commit(port_of(_socket_of(connection)), self._lost)
            return use(connection, *args, **options)

        return telling


def _socket_of(connection: Any) -> int:
    # A pipeline has a connection.
    return getattr(connection, "_connection", connection).fileno()


def port_of(descriptor: int) -> int:
    """The port that a connection has at this end."""
    with socket.socket(fileno=os.dup(descriptor)) as end:
        return end.getsockname()[1]


def _writes() -> bool:
    """Whether this thread commits what runs do; not heartbeats."""
    return not threading.current_thread().name.startswith("durably-beat")
