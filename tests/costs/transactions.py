"""What a run asks of its database: its transactions, and the names of the statements in each.

Owns the record and how it reads; how a database is listened to is `costs.taps`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction, as it was committed.

    Attributes:
        phase: what the run was at.
        statements: what was executed between its beginning and its end, in order.
        reads: True if it is one that only reads: nobody waits for a disk at its end.
        round_trips: how often the server was waited for, BEGIN and COMMIT included; 0 where there
            is no server.
    """

    phase: str
    statements: tuple[str, ...]
    reads: bool
    round_trips: int = 0

    def __str__(self) -> str:
        counted = [(name, len(list(same))) for name, same in groupby(self.statements)]
        names = ", ".join(name if n == 1 else f"{name} x{n}" for name, n in counted)
        trips = f" ({self.round_trips} round trips)" if self.round_trips else ""
        return f"  {'read' if self.reads else 'commit'}{trips}: {names or 'nothing'}"


@dataclass(slots=True)
class Record:
    """The transactions of a run, from whichever connection; threads may add to it.

    Attributes:
        phase: what the run is at; empty while nothing is to be recorded.
    """

    phase: str = ""
    _found: list[Transaction] = field(default_factory=list[Transaction])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, statements: Iterable[str], *, reads: bool, round_trips: int = 0) -> None:
        if not self.phase:
            return
        with self._lock:
            self._found.append(Transaction(self.phase, tuple(statements), reads, round_trips))

    def clear(self) -> None:
        with self._lock:
            self._found.clear()

    def lines(self) -> Iterator[str]:
        """Totals, then every transaction, by phase."""
        found = list(self._found)
        yield f"commits waited for: {sum(not t.reads for t in found)}"
        yield f"reads: {sum(t.reads for t in found)}"
        yield f"statements: {sum(len(t.statements) for t in found)}"
        if trips := sum(t.round_trips for t in found):
            yield f"round trips: {trips}"
        for phase, transactions in groupby(found, key=lambda t: t.phase):
            yield ""
            yield f"{phase}:"
            yield from map(str, transactions)
