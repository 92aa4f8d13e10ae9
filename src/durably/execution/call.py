"""What a tool may know and do about its own call: ``durably.current_call()``.

Owns the context variable and the tool's side of a transaction; committing is the guard's.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from durably.errors import DurablyError
from durably.ledger.database import ToolTransaction

if TYPE_CHECKING:
    from durably.execution.inside import Inside

_current: ContextVar[Call | None] = ContextVar("durably_current_call", default=None)


class Call:
    """The tool call being executed.

    Attributes:
        run_key: the run's key.
        attempt: which attempt of the run executes it.
        call_id: the call's position in the run, such as ``3.0``.
        tool_name: the tool's name.
        args: the arguments as the model gave them, validated.
        idempotency_key: the same in every attempt of this call; hand it to the service that the
            tool calls, so that a repeat is recognised there.
    """

    def __init__(
        self,
        *,
        run_key: str,
        attempt: int,
        call_id: str,
        tool_name: str,
        args: dict[str, Any],
        idempotency_key: str,
        transaction: ToolTransaction | None = None,
        inside: Inside | None = None,
    ) -> None:
        self.run_key = run_key
        self.attempt = attempt
        self.call_id = call_id
        self.tool_name = tool_name
        self.args = args
        self.idempotency_key = idempotency_key
        self._transaction = transaction
        self._inside = inside

    @property
    def inside(self) -> Inside:
        """What the tool's code may do durably within this call.

        Raises:
            DurablyError: nothing, here.
        """
        if self._inside is None:
            raise DurablyError(
                f"durably.step() and waits work in a tool's own code, not inside a step and not in "
                f"a TRANSACTIONAL tool or an output function: here it is {self.tool_name!r}."
            )
        return self._inside

    def transaction(self) -> TransactionScope:
        """A transaction on the ledger's own database, committed together with this tool's result.

        ``with call.transaction() as connection:`` in a sync tool, ``async with`` in an async one.
        On PostgreSQL the connection is psycopg's ``Connection`` or ``AsyncConnection``, on SQLite
        it is ``sqlite3``'s in both. It opens here and commits after the tool has returned; raising
        rolls it back. SQLite has one writer: keep the tool short once the transaction is open.

        Raises:
            DurablyError: the tool is not declared ``metadata=effects.TRANSACTIONAL``.
        """
        if self._transaction is None:
            raise DurablyError(
                f"Tool {self.tool_name!r} asked for a transaction: declare it with "
                "metadata=effects.TRANSACTIONAL."
            )
        return TransactionScope(self._transaction)


class TransactionScope:
    """The block in which a tool writes; see `Call.transaction`."""

    def __init__(self, transaction: ToolTransaction) -> None:
        self._transaction = transaction

    def __enter__(self) -> Any:
        if _in_event_loop():
            # Waiting here for the write lock would stop the loop that whoever holds it may need.
            raise DurablyError("In an async tool, write `async with call.transaction()`.")
        return self._transaction.begin()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._transaction.rollback()

    async def __aenter__(self) -> Any:
        return await self._transaction.begin_async()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def current_call() -> Call:
    """The call of the tool that is running.

    Raises:
        DurablyError: no tool of a durable run is running here.
    """
    call = _current.get()
    if call is None:
        raise DurablyError("current_call() only works inside a tool of a durable run.")
    return call


def set_current_call(call: Call) -> None:
    """Make ``call`` the current one in this task and what it starts."""
    _current.set(call)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
