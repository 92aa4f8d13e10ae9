"""What tests of the demo look for when it is over."""

from __future__ import annotations

import asyncio

from durably.demo.app import make_app
from durably.demo.site import Site

DEADLINE_SECONDS = 240.0


async def no_worker_is_alive(site: Site) -> None:
    """Wait until the ledger knows of no live worker."""
    async with make_app(site, None) as app, asyncio.timeout(DEADLINE_SECONDS):
        while True:
            if not any(worker.alive for worker in await app.workers()):
                return
            await asyncio.sleep(0.1)
