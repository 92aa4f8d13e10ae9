"""Who of this process may ask SQLite for the lock of a file, one after the other.

Owns the order: the ledger's own writes first, since heartbeats are among them, then tools in their
transactions, as they came. Between processes SQLite decides, and whoever waits there polls.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Generator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic

from durably.errors import LedgerError


class Turns:
    """Hands the turns of one file out; used in any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: Turn | None = None
        self._came = monotonic()
        self._waiting: deque[Turn] = deque()
        self._ahead = 0

    def ask(self) -> Turn:
        """A tool's turn, which may have come already; it lasts until it is ended."""
        turn = Turn(self)
        with self._changed:
            self._waiting.append(turn)
            self._pass_on()
        return turn

    @contextmanager
    def ahead(self, seconds: float) -> Generator[float]:
        """Be next, before all tools that wait; they go on after the block.

        Args:
            seconds: how long to wait for the tool whose turn it is. If it takes longer, the block
                begins nevertheless, and it is for SQLite to say that the file is locked.

        Yields:
            How many of these seconds are left.
        """
        give_up_at = monotonic() + seconds
        with self._changed:
            self._ahead += 1
            self._changed.wait_for(lambda: self._held is None, seconds)
        try:
            yield max(0.0, give_up_at - monotonic())
        finally:
            with self._changed:
                self._ahead -= 1
                self._pass_on()

    def end(self, turn: Turn) -> None:
        """Of a turn, or of waiting for it; once is enough, more does no harm."""
        with self._changed:
            if turn is self._held:
                self._held = None
                self._changed.notify_all()
                self._pass_on()
            elif turn in self._waiting:
                self._waiting.remove(turn)
                if not turn.come.done():
                    turn.come.set_exception(
                        LedgerError("This transaction is over: it was rolled back.")
                    )

    def _pass_on(self) -> None:
        while self._held is None and not self._ahead and self._waiting:
            turn = self._waiting.popleft()
            if turn.come.set_running_or_notify_cancel():
                self._held = turn
                self._came = monotonic()
                turn.come.set_result(None)

    def patience(self, turn: Turn, seconds: float) -> float:
        """How long to wait for a turn yet, if no one turn of the others may take longer than
        ``seconds``; nothing, or less, if one has."""
        return max(self._came, turn.asked) + seconds - monotonic()


class Turn:
    """One tool's turn.

    However many wait, each comes to its turn: only one that does not end keeps the others out.

    Attributes:
        asked: when it was asked for, as `time.monotonic` says it.
        come: done when it has come; failed when it was ended before.
    """

    def __init__(self, turns: Turns) -> None:
        self.asked = monotonic()
        self.come = Future[None]()
        self._turns = turns

    def wait(self, seconds: float) -> None:
        """Wait for it, in a thread.

        Args:
            seconds: how long another's turn may take.

        Raises:
            TimeoutError: one took longer; this one is ended.
            LedgerError: it was ended meanwhile.
        """
        try:
            while not self.come.done():
                futures.wait({self.come}, timeout=self._patience(seconds))
            self.come.result()
        except BaseException:
            self.end()
            raise

    async def wait_async(self, seconds: float) -> None:
        """Wait for it, in an event loop; raises as `wait`."""
        come = asyncio.wrap_future(self.come)
        try:
            while not come.done():
                await asyncio.wait({come}, timeout=self._patience(seconds))
            come.result()
        except BaseException:
            come.cancel()  # Nobody looks any more how it ended.
            self.end()
            raise

    def _patience(self, seconds: float) -> float:
        if (left := self._turns.patience(self, seconds)) <= 0:
            raise TimeoutError
        return left

    def end(self) -> None:
        """Let the next one have theirs."""
        self._turns.end(self)
