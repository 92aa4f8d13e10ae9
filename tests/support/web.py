"""A ledger with runs in many states, and the site that shows it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import httpx

from durably import Durably

OPERATOR, VIEWER = "a token of an operator", "a token of a viewer"


@dataclass(frozen=True)
class Shop:
    """A ledger with runs, and where it is served."""

    url: str
    ledger: str
    folder: Path

    def app(self) -> Durably:
        """The application again, for the test's own loop."""
        from apps.desk import make

        os.environ["DURABLY_URL"] = self.ledger
        return make()

    def client(self, token: str | None = OPERATOR) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


async def fill(folder: Path) -> None:
    """Runs that completed, failed, wait, are in doubt, cancelled, scheduled, in a thread."""
    from apps.desk import make

    async with make() as app:
        await app.enqueue("echo", "hello", key="said", tags=["t"], thread="talk", meta={"m": 1})
        await app.enqueue("echo", "again", key="said/again", thread="talk")
        await app.enqueue("payer", "pay", key="waiting", budget=None)
        await app.enqueue("asker", "ask", key="asking")
        await app.enqueue("planner", "plan", key="planning")
        (folder / "broken").touch()
        await app.enqueue("cashier", "charge", key="doubted")
        await app.drain()
        (folder / "broken").unlink()
        await app.enqueue("echo", "later", key="later", delay=3600)
        await app.enqueue("nobody", "who?", key="unknown")
        cancelled = await app.enqueue("echo", "no", key="cancelled", delay=3600)
        await cancelled.cancel()
        await app.pause("quiet")
