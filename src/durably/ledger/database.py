"""What the ledger needs of a database, as a protocol that every driver fulfils.

Owns no SQL and no rules of the lifecycle; those are the ledger's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from durably.ledger.operations import Operation
from durably.records import Finding

type Listener = Callable[[], None]

type Clock = Callable[[], datetime]
"""What the ledger takes for the time, instead of its own; for tests."""

BLOCKING_SECONDS = 60.0
"""How long `Database.write_blocking` waits for its commit."""


@runtime_checkable
class MovableClock(Protocol):
    """A clock that a test moves, and that lets others see to it that they are moved along."""

    def around_moves(
        self, around: Callable[[float], AbstractContextManager[None]]
    ) -> AbstractContextManager[None]:
        """Within the block, move only inside of ``around(seconds)``."""
        ...


class ToolTransaction(Protocol):
    """One open transaction in which a transactional tool and the ledger write together."""

    @property
    def begun(self) -> bool:
        """True while it is open."""
        ...

    @property
    def lost(self) -> bool:
        """True if the database took it away, or did not give it: nothing happened in it."""
        ...

    def begin(self) -> Any:
        """Open it for a tool in a thread; blocks until the database lets this process write.

        Returns:
            The driver's own connection, for the tool's statements; the same one if it is open.
        """
        ...

    async def begin_async(self) -> Any:
        """`begin`, for a tool on the event loop."""
        ...

    async def commit[T](self, operation: Operation[T], *, progress: bool = False) -> T:
        """Run one of the ledger's operations inside it, and make both durable together.

        Args:
            progress: whether the operation writes only what `operations.progress` says. Whether
                the tool has enqueued something is known here.

        Raises:
            LedgerUnavailable: it was not committed, or nobody knows whether it was.
            Exception: it was not committed.
        """
        ...

    def rollback(self) -> None:
        """Undo what was written; does nothing if it never began. It may begin again."""
        ...

    async def close(self) -> None:
        """`rollback`, for good: a tool whose attempt was stopped, in a thread, begins no other.

        Safe while that thread is using the connection; what it tries next is refused.
        """
        ...


class Database(Protocol):
    """One database: short transactions, reads, change notices.

    Attributes:
        url: where it is, as it may be shown: without a password.
        versions: of the schema: as `migrate`, or on SQLite `open`, found it (0: there was none),
            and as it is now.
        oban_tables: what `migrate` did about Oban's tables, on Postgres: ``created``,
            ``completed`` or ``unchanged``; None where there are none.
        clock: what it takes for the time; None: its own.
    """

    dialect: str
    url: str
    versions: tuple[int, int]
    oban_tables: str | None
    clock: Clock | None

    def beside(self) -> Database:
        """The same ledger once more, with connections of its own; not yet opened."""
        ...

    async def open(self) -> None:
        """Connect; doing it twice is harmless. SQLite also brings the schema up to date.

        Raises:
            SchemaError: a newer version of durably wrote the tables; on Postgres also if they are
                missing or older, since making them needs rights that workers should not have.
            LedgerUnavailable: the database cannot be opened or written.
            LedgerCorrupt: it is not a database.
        """
        ...

    async def open_beside(self, connection: object) -> None:
        """`open`, for a caller whose own transaction may hold the database: does not wait for it.

        Raises:
            ConfigError: the ledger has to be made first, and cannot be now.
        """
        ...

    async def migrate(self) -> None:
        """Make the tables, or bring them up to date, then `open`."""
        ...

    async def migration_sql(self, found: int | None) -> str:
        """The statements that `migrate` would run, as a script; changes nothing.

        Args:
            found: the version of the tables as they are (0: none); None to look.

        Raises:
            ConfigError: a ledger of this kind needs no script; or there is no such version.
        """
        ...

    async def exists(self) -> bool:
        """True if there is a ledger to open; makes nothing.

        Raises:
            LedgerError: what is there cannot be read, or is not a database.
        """
        ...

    async def examine(self) -> list[Finding]:
        """Look whether the database is fit to hold a ledger; changes nothing."""
        ...

    async def close(self) -> None:
        """Commit what is queued and let go of every connection."""
        ...

    async def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run an operation in one durable transaction; returns once it is committed.

        ``await ledger.write(attempts.claim, worker_id, "agents", 20)``
        """
        ...

    async def read[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a read-only operation on one consistent snapshot."""
        ...

    def write_blocking[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write`, from a thread that is not an event loop's; for heartbeats.

        Raises:
            LedgerUnavailable: no commit within `BLOCKING_SECONDS`.
        """
        ...

    async def run_on[T](self, connection: object, operation: Operation[T]) -> T:
        """Run an operation inside the caller's own open transaction.

        Raises:
            TypeError, ConfigError: the connection is none that can carry it.
        """
        ...

    def transaction(self) -> ToolTransaction:
        """A transaction of its own for one tool call; not yet begun."""
        ...

    def subscribe(
        self, listener: Listener, *, progress: bool = False
    ) -> AbstractContextManager[None]:
        """Call ``listener``, from any thread, soon after any process has committed something.

        Args:
            progress: also when it was nothing but the progress of runs (`operations.progress`).
                Where nobody knows what was committed, everybody is called.
        """
        ...
