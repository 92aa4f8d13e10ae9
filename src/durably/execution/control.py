"""How the outside ends an attempt: lease lost, cancelled, timed out, handed back.

Owns the reasons and the attempt's task; who decides that it must end is the worker's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum

from durably.errors import LeaseLost
from durably.execution.outcome import AttemptEnds, Cancelled, HandedBack, Lost


class Ending(Enum):
    """Why an attempt is being stopped from outside; the first reason stays."""

    LOST = "lost"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    GRACE_OVER = "grace over"


class AttemptControl:
    """One attempt's switches, shared by its journal, its executor and the worker.

    Args:
        lease_valid: False as soon as this worker cannot be sure any more that its lease holds.

    Attributes:
        ending: why it is being stopped; None while it may go on.
        leaving: True once it should hand its run back at the next checkpoint.
        settling: True once its last write is being made: the ledger may say that it is over.
    """

    def __init__(self, lease_valid: Callable[[], bool] = lambda: True) -> None:
        self._lease_valid = lease_valid
        self._task: asyncio.Task[object] | None = None
        self._ended: asyncio.Future[None] | None = None
        self.ending: Ending | None = None
        self.leaving = False
        self.settling = False

    def attach(self, task: asyncio.Task[object]) -> None:
        """Name the task that `end` cancels; cancels it at once if the end came first."""
        self._task = task
        if self.ending is not None:
            task.cancel()

    def leave(self) -> None:
        """Ask for the run to be handed back at its next checkpoint."""
        self.leaving = True

    def end(self, reason: Ending) -> None:
        """Stop the attempt now; a second reason changes nothing."""
        if self.ending is None:
            self.ending = reason
            if self._ended is not None:
                self._ended.set_result(None)
            if self._task is not None:
                self._task.cancel()

    def ended(self) -> asyncio.Future[None]:
        """Done once `end` was called, if it ever is; for who waits for that and something else."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            if self.ending is not None:
                self._ended.set_result(None)
        return self._ended

    @property
    def lost(self) -> bool:
        """True once this attempt must not act for the run any more."""
        return self.ending is Ending.LOST or not self._lease_valid()

    def check_before_step(self) -> None:
        """Called before each model request: the place where a leaving worker hands runs back.

        Raises:
            AttemptEnds: the attempt is to take no further step.
        """
        self.check_before_acting()
        if self.leaving:
            raise AttemptEnds(HandedBack())

    def check_before_acting(self) -> None:
        """Called before each tool as well. Tools of a batch that has begun are let finish.

        Raises:
            AttemptEnds: the attempt is to act no more. A frozen process that wakes up after its
                lease stops here, before it does anything to the world.
        """
        if self.lost:
            self.end(Ending.LOST)
            raise AttemptEnds(Lost())
        if self.ending is Ending.CANCELLED:
            raise AttemptEnds(Cancelled())

    def check_lease(self) -> None:
        """Raise `LeaseLost` once the lease is over; for code that waits and tries again."""
        if self.lost:
            raise LeaseLost("This worker's lease ended; another attempt may own the run.")
