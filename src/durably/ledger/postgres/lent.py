"""Connections lent to transactional tools: psycopg's own, whose transaction is not theirs to end.

Owns what a tool cannot do with one, and taking it away, also while it is in use; what is recorded
with the tool's writes, and when both are committed, is the transaction's; whether the server's
session is kept for the next tool is `spare`'s.
"""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import suppress
from typing import Any, NoReturn

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn

from durably.errors import LedgerError

CANCEL_SECONDS = 5.0
"""How long to ask the server to stop what it is doing for a tool that was stopped."""

_NOTHING = r"(?:\s|;|--[^\n]*|/\*.*?\*/)*"
_ENDS = re.compile(
    rf"{_NOTHING}(commit|end|abort|prepare\s+transaction|rollback(?!(\s+\w+)?\s+to\b))\b",
    re.IGNORECASE | re.DOTALL,
)


class LentConnection(psycopg.Connection[Any]):
    """A connection for a sync tool.

    A tool in a thread goes on when its attempt is stopped. To close a connection while somebody
    waits on it crashes the process, so each wait takes its turn, and `end` has the last one.

    Attributes:
        enqueued: whether a run was enqueued in its transaction, which others have to hear of.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _LentCursor
        self.over = self.enqueued = False
        self._released = False
        self._turn = threading.Lock()

    @property
    def closed(self) -> bool:
        """True as well once its session may be somebody else's."""
        return self._released or super().closed

    @property
    def in_use(self) -> bool:
        """True while the server is asked for something: ending it may take a moment."""
        return self._turn.locked() or _is_active(self)

    def wait[T](self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        with self._turn:
            _check(self.over)
            return super().wait(self._while_lent(gen), *args, **kwargs)

    def _while_lent[T](self, gen: PQGen[T]) -> PQGen[T]:
        # Resumed by psycopg several times a second, also while the server says nothing.
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                _check(self.over)
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value

    def commit(self) -> None:
        _refuse_commit("commit()")

    def rollback(self) -> None:
        _refuse_rollback()

    def close(self) -> None:
        _refuse_close()

    def cancel(self) -> None:
        _check(self._released)
        super().cancel()

    def cancel_safe(self, *, timeout: float = CANCEL_SECONDS) -> None:
        _check(self._released)
        super().cancel_safe(timeout=timeout)

    def end(self) -> None:
        """Close it for good; the server rolls back what is not committed."""
        self.over = True
        with self._turn:
            if _is_active(self):
                # Else it would go on until it has an answer for nobody, and hold its locks.
                with suppress(psycopg.Error):
                    self.cancel_safe(timeout=CANCEL_SECONDS)
            self.pgconn.finish()

    def release(self) -> PGconn | None:
        """Its session, of which nothing can be asked here any more; None while it is in use."""
        if not self._turn.acquire(blocking=False):
            return None
        self.over = self._released = True
        self._turn.release()
        return self.pgconn


class LentAsyncConnection(psycopg.AsyncConnection[Any]):
    """A connection for an async tool; its waits are tasks, which `end` can cancel.

    Attributes:
        enqueued: as of `LentConnection`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _LentAsyncCursor
        self.over = self.enqueued = False
        self._released = False
        self._waits: set[asyncio.Task[Any]] = set()

    @property
    def closed(self) -> bool:
        """True as well once its session may be somebody else's."""
        return self._released or super().closed

    async def wait[T](self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        _check(self.over)
        waiting = asyncio.create_task(super().wait(gen, *args, **kwargs))
        self._waits.add(waiting)
        try:
            return await waiting
        finally:
            self._waits.discard(waiting)
            if self.over and not self._waits:
                self.pgconn.finish()

    async def commit(self) -> None:
        _refuse_commit("commit()")

    async def rollback(self) -> None:
        _refuse_rollback()

    async def close(self) -> None:
        _refuse_close()

    def cancel(self) -> None:
        _check(self._released)
        super().cancel()

    async def cancel_safe(self, *, timeout: float = CANCEL_SECONDS) -> None:
        _check(self._released)
        await super().cancel_safe(timeout=timeout)

    def end(self) -> None:
        """Close it for good, once psycopg has had the server stop what it is doing."""
        self.over = True
        for waiting in self._waits:
            if not waiting.cancelling():
                waiting.cancel()
        if not self._waits:
            self.pgconn.finish()

    def release(self) -> PGconn | None:
        """Its session, of which nothing can be asked here any more; None while it is in use."""
        if self._waits:
            return None
        self.over = self._released = True
        return self.pgconn


class _LentCursor(psycopg.Cursor[Any]):
    def execute(self, query: Any, *args: Any, **kwargs: Any) -> _LentCursor:
        _check_statement(query)
        return super().execute(query, *args, **kwargs)


class _LentAsyncCursor(psycopg.AsyncCursor[Any]):
    async def execute(self, query: Any, *args: Any, **kwargs: Any) -> _LentAsyncCursor:
        _check_statement(query)
        return await super().execute(query, *args, **kwargs)


type Lent = LentConnection | LentAsyncConnection


def _is_active(connection: LentConnection) -> bool:
    return connection.pgconn.transaction_status == TransactionStatus.ACTIVE


def _check(over: bool) -> None:
    if over:
        raise LedgerError("This transaction is over: it was rolled back.")


def _check_statement(query: object) -> None:
    """Refuse a statement that is there to end the transaction.

    For the plain mistake only; that the transaction is still the same is looked at before it is
    committed.
    """
    if found := _ENDS.match(_beginning(query)):
        word = " ".join(found[1].upper().split())
        if word in ("ROLLBACK", "ABORT"):
            _refuse_rollback()
        _refuse_commit(word)


def _beginning(query: object) -> str:
    while isinstance(query, sql.Composed):
        query = next(iter(query), "")
    if isinstance(query, sql.SQL):
        return query.as_string()
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    return query if isinstance(query, str) else ""


def _refuse_commit(what: str) -> NoReturn:
    raise LedgerError(f"This transaction commits together with the tool's result; remove {what}.")


def _refuse_rollback() -> NoReturn:
    raise LedgerError("Raise an exception to roll this transaction back.")


def _refuse_close() -> NoReturn:
    raise LedgerError("This connection is closed once the tool's result is recorded; leave it.")
