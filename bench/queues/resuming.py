"""From when a worker is killed, or hands its run back, until another goes on with the run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from durably import Durably, Run
from queues.databases import Databases
from queues.figures import Figures
from queues.sizes import Sizes

LEASE_SECONDS = 3.0
PATIENCE_SECONDS = 120.0
HERE = Path(__file__).parent.parent


def measure(databases: Databases, figures: Figures, sizes: Sizes) -> None:
    for database in ("sqlite", "postgres"):
        killed: list[float] = []
        handed: list[float] = []
        for _ in range(sizes.ends):
            for found, signum in ((killed, signal.SIGKILL), (handed, signal.SIGTERM)):
                with databases.new(database) as url:
                    found.append(asyncio.run(_resumed(url, signum)))
        lease = f"lease {LEASE_SECONDS:g} s"
        median = figures.add(f"killed to resumed, {lease}", "durably", database, "s", killed)
        figures.aim(
            f"killed to resumed, {lease}, median",
            database,
            median,
            at_most=LEASE_SECONDS + 1.0,
            unit="s",
        )
        median = figures.add("handed back to resumed", "durably", database, "s", handed)
        figures.aim("handed back to resumed, median", database, median, at_most=0.5, unit="s")


async def _resumed(url: str, signum: signal.Signals) -> float:
    """Seconds from the worker's end, or from when it gave the run back, until it is claimed."""
    async with Durably(url) as app, _worker(url) as first:
        run = await app.enqueue("looping", "hi")
        await _until_attempts(run, 1)
        await asyncio.sleep(0.3)  # It is in the middle of it.
        async with _worker(url):
            await _until_workers(app, 2)
            at = time.time()
            first.send_signal(signum)
            await _until_attempts(run, 2)
            before, after, *_ = await run.attempts()
            if signum == signal.SIGTERM:
                assert before.ended_at is not None
                at = before.ended_at.timestamp()
            return after.started_at.timestamp() - at


@asynccontextmanager
async def _worker(url: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "durably", "worker", "--app", "queues.looping:make"),
        *("--lease", f"{LEASE_SECONDS:g}", "--grace", "30"),
        env={**os.environ, "DURABLY_URL": url, "PYTHONPATH": str(HERE)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_attempts(run: Run[object], count: int) -> None:
    await _until(lambda: run.attempts(), count)


async def _until_workers(app: Durably, count: int) -> None:
    await _until(lambda: app.workers(), count)


async def _until(ask: Callable[[], Awaitable[Sequence[object]]], count: int) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while len(await ask()) < count:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"no {count} in {PATIENCE_SECONDS:g} s")
        await asyncio.sleep(0.01)
