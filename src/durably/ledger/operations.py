"""Statements and operations: what the ledger asks of a database, without saying how it is driven.

Owns the vocabulary between ledger and drivers; a driver decides threads, locks and connections.

An operation is a generator: it yields a `Statement`, receives its rows, and returns its result.
So one text of each transition is run by SQLite's writer, over the caller's own open
connection, or asynchronously on Postgres, always inside one transaction of the driver's making.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Row(Protocol):
    """One row; columns by name."""

    def __getitem__(self, key: str, /) -> Any: ...


class Statement(NamedTuple):
    """A named statement of the ``.sql`` files and its parameters.

    Attributes:
        last: it may be made at the end of the transaction, whatever comes between; no rows of it
            are looked at.
        alone: it is all that its operation writes, or reads, and all or nothing by itself: it
            needs no transaction around it. What the operation asks for afterwards only explains.
        repeatable: it may be made again when nobody heard what became of it: it finds what it did.
        counted: of the rows that it changes, only how many they are is looked at.
        instead: what does the same, and gives the same rows, on a database without this statement.
    """

    name: str
    params: Mapping[str, object]
    last: bool = False
    alone: bool = False
    repeatable: bool = False
    counted: bool = False
    instead: Callable[[], Operation[Sequence[Row]]] | None = None


type Operation[T] = Generator[Statement, Sequence[Row], T]

_BRIEF = "_durably_brief"
_PROGRESS = "_durably_progress"


def brief[F: Callable[..., Operation[Any]]](operation: F) -> F:
    """Mark what takes a moment, however large the ledger is: a few rows, found by their keys or at
    an end of an index.

    A driver may run it where it is asked for, also in an event loop, instead of in a thread.
    """
    setattr(operation, _BRIEF, True)
    return operation


def is_brief(operation: Callable[..., Operation[Any]]) -> bool:
    """Whether the operation is marked as `brief`."""
    return getattr(operation, _BRIEF, False)


def progress[F: Callable[..., Operation[Any]]](operation: F) -> F:
    """Mark what a run under way writes about itself: it is news to nobody but who follows the run.

    After its commit no run is due that was not before, none has ended, and none waits: whoever
    waits for that need not look.
    """
    setattr(operation, _PROGRESS, True)
    return operation


def is_progress(operation: Callable[..., Operation[Any]]) -> bool:
    """Whether the operation is marked as `progress`."""
    return getattr(operation, _PROGRESS, False)


class Deferred(Mapping[str, object]):
    """Parameters that are put together once they are needed, if they are."""

    def __init__(self, make: Callable[[], dict[str, object]]) -> None:
        self._make = make
        self._made: dict[str, object] | None = None

    def _params(self) -> dict[str, object]:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, name: str) -> object:
        return self._params()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params())

    def __len__(self) -> int:
        return len(self._params())


def fetch(name: str, /, **params: object) -> Operation[Sequence[Row]]:
    """Run a statement and return its rows."""
    return (yield Statement(name, params))


def execute_alone(name: str, /, **params: object) -> Operation[int]:
    """`execute` with a statement that needs no transaction around it (see `Statement`)."""
    return len((yield Statement(name, params, alone=True, counted=True)))


def one_alone(name: str, /, **params: object) -> Operation[Row | None]:
    """`fetch_one` with a statement that needs no transaction around it (see `Statement`)."""
    rows = yield Statement(name, params, alone=True)
    return rows[0] if rows else None


def fetch_one(name: str, /, **params: object) -> Operation[Row | None]:
    """Run a statement and return its first row, or None."""
    rows = yield Statement(name, params)
    return rows[0] if rows else None


def execute_last(name: str, /, **params: object) -> Operation[None]:
    """Run a statement for its effect, before the transaction ends."""
    yield Statement(name, params, last=True)


def begun[T](operation: Operation[T]) -> tuple[Statement | None, Operation[T]]:
    """The operation's first statement, None if it makes none, and the operation with it."""
    first: Statement | None = None
    result: list[T] = []
    try:
        first = next(operation)
    except StopIteration as end:
        result.append(end.value)

    def again() -> Operation[T]:
        if first is None:
            return result[0]
        statement = first
        try:
            while True:
                statement = operation.send((yield statement))
        except StopIteration as end:
            return end.value

    return first, again()


def postponing[T](operation: Operation[T], postponed: list[Statement]) -> Operation[T]:
    """An operation without what may come last, which is put aside."""
    try:
        statement = next(operation)
        while True:
            if statement.last:
                postponed.append(statement)
                statement = operation.send(())
            else:
                statement = operation.send((yield statement))
    except StopIteration as end:
        return end.value


def execute(name: str, /, **params: object) -> Operation[int]:
    """Run a statement for its effect and return how many rows it changed."""
    return len((yield Statement(name, params, counted=True)))
