"""The ledger as a life sees it: its own connections, which are gone when it is over.

Owns that nothing more is written then, whoever tries; the life itself is `life`'s.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from durably.boundaries import Died
from durably.ledger import workers
from durably.ledger.database import Clock, Database, Listener, MovableClock, ToolTransaction
from durably.ledger.operations import Operation
from durably.records import Finding
from durably.testing.life import LaneDied, Life


class MortalLedger:
    """A `Database` for the code of one life; all others, who hold it as well, see the ledger.

    Args:
        ledger: what the others see.
    """

    def __init__(self, ledger: Database, life: Life) -> None:
        self._others = ledger
        self._own = ledger.beside()
        self._life = life
        self._transactions: list[MortalTransaction] = []
        self.dialect, self.url = ledger.dialect, ledger.url
        self.versions, self.oban_tables = ledger.versions, ledger.oban_tables
        self.clock: Clock | None = self._own.clock
        if isinstance(ledger.clock, MovableClock):
            self.clock = _MortalClock(ledger.clock, life)

    # --- the life's end

    async def cut(self) -> None:
        """Let go of every connection; what is not committed is undone."""
        for transaction in self._transactions:
            await transaction.close()
        await self._own.close()

    async def end_leases(self) -> None:
        """Let the leases of its workers be over."""
        for worker_id, *row in self._life.workers.values():
            await self._others.write(workers.register, worker_id, row[0], row[1], row[2], 0.0)

    # --- what the life, and others, do

    @property
    def _seen(self) -> Database:
        if not self._life.here:
            return self._others
        self._life.check()
        return self._own

    def beside(self) -> Database:
        return self._others.beside()

    async def open(self) -> None:
        await self._seen.open()

    async def open_beside(self, connection: object) -> None:
        await self._seen.open_beside(connection)

    async def migrate(self) -> None:
        await self._seen.migrate()

    async def migration_sql(self, found: int | None) -> str:
        return await self._seen.migration_sql(found)

    async def exists(self) -> bool:
        return await self._seen.exists()

    async def examine(self) -> list[Finding]:
        return await self._seen.examine()

    async def close(self) -> None:
        await self._seen.close()

    async def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self._seen is self._others:
            return await self._others.write(operation, *args, **kwargs)
        self._note(operation, args)
        work = self._own.write(self._mortal(operation), *args, **kwargs)
        return await self._life.outlive(asyncio.ensure_future(work))

    async def read[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if self._seen is self._others:
            return await self._others.read(operation, *args, **kwargs)
        work = self._own.read(self._mortal(operation), *args, **kwargs)
        return await self._life.outlive(asyncio.ensure_future(work))

    def write_blocking[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        # Only the life's own heartbeats come here, in a thread that knows of no life.
        self._life.check()
        self._note(operation, args)
        try:
            return self._own.write_blocking(self._mortal(operation), *args, **kwargs)
        except Exception:
            self._life.check()
            raise

    async def run_on[T](self, connection: object, operation: Operation[T]) -> T:
        return await self._seen.run_on(connection, operation)

    def transaction(self) -> ToolTransaction:
        if self._seen is self._others:
            return self._others.transaction()
        transaction = MortalTransaction(self._own.transaction(), self._life)
        self._transactions.append(transaction)
        return transaction

    @contextmanager
    def subscribe(self, listener: Listener, *, progress: bool = False) -> Generator[None]:
        with self._seen.subscribe(listener, progress=progress):
            yield

    def _note(self, operation: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if operation in (workers.register, workers.beat):
            self._life.workers[args[0]] = args

    def _mortal[**P, T](self, operation: Callable[P, Operation[T]]) -> Callable[P, Operation[T]]:
        """The operation, unless the life is over by the time that its turn comes."""

        @functools.wraps(operation)
        def mortal(*args: P.args, **kwargs: P.kwargs) -> Operation[T]:
            self._life.lanes.add(threading.get_ident())
            if self._life.dead:
                raise LaneDied
            return (yield from operation(*args, **kwargs))

        return mortal


class MortalTransaction:
    """A tool's transaction that is undone when the life is over."""

    def __init__(self, own: ToolTransaction, life: Life) -> None:
        self._own = own
        self._life = life

    @property
    def begun(self) -> bool:
        return self._own.begun

    @property
    def lost(self) -> bool:
        return self._own.lost

    def begin(self) -> Any:
        self._life.check()
        return self._own.begin()

    async def begin_async(self) -> Any:
        self._life.check()
        return await self._own.begin_async()

    async def commit[T](self, operation: Operation[T], *, progress: bool = False) -> T:
        self._life.check()
        try:
            return await self._own.commit(operation, progress=progress)
        except Exception:
            self._life.check()
            raise

    def rollback(self) -> None:
        self._own.rollback()

    async def close(self) -> None:
        await self._own.close()


class _MortalClock:
    """The clock of a life: it moves along only what is alive."""

    def __init__(self, clock: Any, life: Life) -> None:
        self._clock = clock
        self._life = life

    def __call__(self) -> Any:
        return self._clock()

    def around_moves(
        self, around: Callable[[float], AbstractContextManager[None]]
    ) -> AbstractContextManager[None]:
        def while_alive(seconds: float) -> AbstractContextManager[None]:
            return _unless_it_dies(around(seconds)) if not self._life.dead else nullcontext()

        return self._clock.around_moves(while_alive)


@contextmanager
def _unless_it_dies(around: AbstractContextManager[None]) -> Generator[None]:
    try:
        around.__enter__()
    except Died:
        yield
        return
    try:
        yield
    finally:
        around.__exit__(None, None, None)
