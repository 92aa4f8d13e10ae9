"""A life that ends at a boundary: what one worker would be, if it were a process of its own.

Owns whose code is part of it, and when it is over; what it may do to the ledger is `mortal`'s.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, cast

from durably import boundaries
from durably.boundaries import Died

REAP_SECONDS = 5.0
"""How long tasks of a life that is over are waited for; one in a thread cannot be stopped."""

PAUSE_SECONDS = 0.005

_LIFE: ContextVar[Life | None] = ContextVar("durably_life", default=None)


class LaneDied(Exception):
    """`Died`, in a thread that commits: there it undoes the transaction."""


class Life:
    """Everything that a block starts, tasks and threads, until a boundary is reached in it.

    Args:
        boundary: where it ends, the ``nth`` time; only where it is about ``tool``, if one is named.

    Attributes:
        dead: True from then on.
        reached: how often each boundary was reached in it.
        workers: what its workers have registered with, by their ids.
    """

    def __init__(self, boundary: str, nth: int, tool: str | None) -> None:
        self.dead = False
        self.reached: Counter[str] = Counter()
        self.workers: dict[str, tuple[Any, ...]] = {}
        self.lanes: set[int] = set()
        self._boundary, self._tool, self._left = boundary, tool, nth
        self._lock = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._home = asyncio.current_task()
        self._cancelling = self._home.cancelling() if self._home else 0
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._leaving = False
        self._interrupted = False

    def begin(self) -> Any:
        """Make what is started from here on a part of it."""
        return _LIFE.set(self)

    def leave(self, token: Any) -> None:
        """The block is over."""
        self._leaving = True
        _LIFE.reset(token)
        if self._interrupted and self._home is not None:
            self._home.uncancel()

    def ended_with(self, error: BaseException) -> bool:
        """True if it was the end of this life, and nothing else, that raised this in the block."""
        if isinstance(error, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", error)
            return all(map(self.ended_with, group.exceptions))
        cancelled = isinstance(error, asyncio.CancelledError) and self._interrupted
        # Somebody else may have cancelled the test as well.
        alone = self._home is None or self._home.cancelling() <= self._cancelling + 1
        return self.dead and (isinstance(error, Died) or (cancelled and alone))

    @property
    def here(self) -> bool:
        """True if the code that asks is a part of it."""
        return _LIFE.get() is self or threading.get_ident() in self.lanes

    def observe(self, name: str) -> None:
        """Be told of a boundary, and die if it is the one.

        Raises:
            Died, LaneDied: it is over.
        """
        if not self.here:
            return
        with self._lock:
            if not self.dead:
                self.reached[name] += 1
                if name == self._boundary and self._tool in (None, boundaries.tool()):
                    self._left -= 1
                    self.dead = self._left == 0
                if not self.dead:
                    return
                self._loop.call_soon_threadsafe(self._end)
        if threading.get_ident() in self.lanes:
            raise LaneDied
        raise Died

    def check(self) -> None:
        """Raise `Died` once it is over."""
        if self.dead:
            raise Died

    async def outlive[T](self, pending: asyncio.Future[T]) -> T:
        """What comes of a write or read, unless the end comes first.

        Raises:
            Died: it came first.
        """
        pending.add_done_callback(_look_at)
        try:
            await asyncio.wait({pending, self._over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self.dead or not pending.done():
                pending.cancel()
        self.check()
        return pending.result()

    def _end(self) -> None:
        """In the event loop: let nobody wait any longer, also not the test."""
        if not self._over.done():
            self._over.set_result(None)
        for task in self._tasks():
            task.add_done_callback(_look_at)
        inside = self._home is not None and self._home is not asyncio.current_task()
        if inside and not self._leaving and self._home is not None and not self._home.done():
            self._interrupted = True
            self._home.cancel()

    async def reap(self) -> None:
        """Cancel whatever is left of it, as often as it takes."""
        deadline = self._loop.time() + REAP_SECONDS
        while (left := list(self._tasks())) and self._loop.time() < deadline:
            for task in left:
                task.add_done_callback(_look_at)
                task.cancel()
            await asyncio.wait(left, timeout=PAUSE_SECONDS)

    def _tasks(self) -> Iterator[asyncio.Task[Any]]:
        for task in asyncio.all_tasks(self._loop):
            if task is not self._home and task.get_context().get(_LIFE) is self:
                yield task


def _look_at(done: asyncio.Future[Any]) -> None:
    """So that nobody complains of an exception that was never looked at."""
    if not done.cancelled():
        done.exception()
