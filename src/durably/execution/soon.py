"""A write that is made a moment later unless another one comes first, and that nobody waits for.

Owns when it begins and that there is one at a time; what is written is the journal's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from durably.errors import LeaseLost

SOON_SECONDS = 0.01
"""How long an outcome waits for a write that it can ride along with: a model that answers at once
brings one, others take far longer."""


class Soon:
    """Has something written, soon; one thing at a time.

    What a write raises when the attempt is over, or its lease is lost, shows at the next one: what
    was to be written is kept for that.
    """

    def __init__(self) -> None:
        self._due: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    def ask(self, write: Callable[[], Awaitable[None]]) -> None:
        """Have this called in `SOON_SECONDS`, unless something is about to be."""
        if self._writing is None and self._due is None:
            loop = asyncio.get_running_loop()
            self._due = loop.call_later(SOON_SECONDS, self._start, write)

    async def finish(self) -> None:
        """See that no write is under way, nor begins: the one that comes now takes its place."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        while self._writing is not None:
            await asyncio.wait({self._writing})

    def _start(self, write: Callable[[], Awaitable[None]]) -> None:
        self._due = None
        self._writing = asyncio.create_task(self._do(write))

    async def _do(self, write: Callable[[], Awaitable[None]]) -> None:
        try:
            await write()
        except (LeaseLost, asyncio.CancelledError):
            return
        finally:
            self._writing = None
