"""When and where attempts start, as a protocol: the embedded dispatcher and Oban's fulfil it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from durably.records import RunRecord

type Start = Callable[[RunRecord], asyncio.Task[RunRecord | None]]
"""Begins an attempt of a claimed run. The task ends with it: with the run as the attempt left it,
or None if the run was lost to another."""


class Slots(Protocol):
    """How many more runs of each queue this worker can take."""

    @property
    def alive(self) -> bool:
        """False while the worker's lease is over: it is to claim nothing."""
        ...

    def free(self, queue: str) -> int:
        """Free places in a queue; none while it is paused."""
        ...


class Dispatcher(Protocol):
    """Claims due runs and starts them until it is stopped."""

    async def run(self, start: Start) -> None:
        """Dispatch until cancelled; then nothing more is claimed."""
        ...

    def slot_freed(self) -> None:
        """A run of this worker ended: there may be room for another."""
        ...

    async def close(self) -> None:
        """Called once the attempts that it started have ended: tell whoever must know."""
        ...
