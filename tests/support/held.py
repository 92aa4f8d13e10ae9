"""Writers that are kept busy while a test gets ready."""

from __future__ import annotations

import asyncio
import threading

from durably.ledger.operations import Operation
from support.ledgers import PATIENCE_SECONDS, Ledger


class HeldWriters:
    """Keeps every writer busy, so that everything that follows waits for one of them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._release = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        # One after the other: a writer takes all that waits, and would begin with the first.
        for _ in range(self._ledger.backend.writers):
            busy = threading.Event()
            self._tasks.append(asyncio.create_task(self._ledger.write(self._operation, busy)))
            assert await asyncio.to_thread(busy.wait, PATIENCE_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        self._release.set()
        await asyncio.gather(*self._tasks)

    def _operation(self, busy: threading.Event) -> Operation[None]:
        busy.set()
        assert self._release.wait(PATIENCE_SECONDS)
        return None
        yield
