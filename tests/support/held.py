"""A writer that is kept busy while a test gets ready."""

from __future__ import annotations

import asyncio
import threading

from durably.ledger.operations import Operation
from support.ledgers import PATIENCE_SECONDS, Ledger


class HeldWriter:
    """Keeps the writer busy, so that everything that follows waits for the same commit."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._busy, self._release = threading.Event(), threading.Event()

    def _operation(self) -> Operation[None]:
        self._busy.set()
        assert self._release.wait(PATIENCE_SECONDS)
        return None
        yield

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._ledger.write(self._operation))
        await asyncio.to_thread(self._busy.wait, PATIENCE_SECONDS)

    async def __aexit__(self, *_: object) -> None:
        self._release.set()
        await self._task
