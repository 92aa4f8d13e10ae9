"""Who of this process may ask SQLite for the lock of a file, one after the other.

Owns the order: the ledger's own writes first, since heartbeats are among them, then tools in their
transactions, as they came. Between processes SQLite decides, and whoever waits there polls.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager

from durably.errors import LedgerError


class Turns:
    """Hands the turns of one file out; used in any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: Turn | None = None
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
        give_up_at = time.monotonic() + seconds
        with self._changed:
            self._ahead += 1
            self._changed.wait_for(lambda: self._held is None, seconds)
        try:
            yield max(0.0, give_up_at - time.monotonic())
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
                turn.come.set_result(None)


class Turn:
    """One tool's turn.

    Attributes:
        come: done when it has come; failed when it was ended before.
    """

    def __init__(self, turns: Turns) -> None:
        self.come = Future[None]()
        self._turns = turns

    def wait(self, seconds: float) -> None:
        """Wait for it, in a thread.

        Raises:
            TimeoutError: it did not come in time; it is ended.
            LedgerError: it was ended meanwhile.
        """
        try:
            self.come.result(seconds)
        except BaseException:
            self.end()
            raise

    async def wait_async(self, seconds: float) -> None:
        """Wait for it, in an event loop; raises as `wait`."""
        try:
            async with asyncio.timeout(seconds):
                await asyncio.wrap_future(self.come)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Let the next one have theirs."""
        self._turns.end(self)
