"""A crash in another process: it works on the test's ledger until SIGKILL, at a boundary.

Owns the process; what it does is `victim`'s.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from durably import boundaries
from durably.app import Durably
from durably.errors import ConfigError
from durably.ledger import workers
from durably.testing.clock import Clock
from durably.testing.crashing import not_reached
from durably.testing.victim import Orders, Source

LAST_CHARS = 4000
"""How much of what a process said is shown if it failed."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed.

    Attributes:
        pid: what it was.
        output: what it had printed, on both streams.
    """

    pid: int
    output: str


async def kill_at(
    app: Durably,
    source: Callable[..., Durably] | str,
    boundary: str,
    nth: int = 1,
    *,
    tool: str | None = None,
    queues: Mapping[str, int] | None = None,
    timeout: float = 300.0,
) -> Kill:
    """Drain the test's ledger in a new process, which is killed by SIGKILL at a boundary.

    Returns when it is dead and its lease over: the next `drain` goes on with its runs.

    ::

        await kill_at(durably_app, make_app, "tool:after", tool="charge_card")
        await durably_app.drain()

    Args:
        app: the test's application: its ledger and its clock are the process's as well.
        source: what the process executes: a function at the top of a module that takes the ledger's
            URL and returns a `Durably`; or ``module:name`` of one, or of an application. One that
            is made without a URL has the test's, in ``DURABLY_URL``.
        boundary, nth, tool: as of `crash_at`.
        queues: as of `Durably.drain`.
        timeout: seconds until a process that neither died nor ended is given up.

    Raises:
        AssertionError: nothing was due any more before the boundary was reached, or the process
            failed; the message says how.
        ConfigError: there is no such boundary, or no other process could import the source.
        TimeoutError: the time is over; the process is killed.
    """
    boundaries.check(boundary)
    if nth < 1:
        raise ConfigError(f"nth={nth}: 1 is the first time that the boundary is reached.")
    clock = app.ledger.clock
    if clock is not None and not isinstance(clock, Clock):
        raise ConfigError("Another process can only be given a durably.testing.Clock.")
    await app.open()
    with tempfile.TemporaryDirectory(prefix="durably-") as folder:
        report = Path(folder) / "report.json"
        orders = Orders(
            source=_source_of(source),
            url=app.settings.url,
            boundary=boundary,
            nth=nth,
            tool=tool,
            queues=None if queues is None else dict(queues),
            path=list(map(os.path.abspath, sys.path)),
            report=str(report),
            clock_start=clock.start.isoformat() if clock and clock.start else None,
            clock_ahead=clock.ahead.total_seconds() if clock else None,
        )
        process = _start(app.settings.url)
        output = await _ended(process, json.dumps(asdict(orders)), timeout)
        if process.returncode == 0:
            raise AssertionError(
                not_reached(boundary, nth, tool, json.loads(report.read_text("utf-8")))
            )
    if process.returncode != -signal.SIGKILL:
        raise AssertionError(
            f"The process that was to be killed failed, with exit code {process.returncode}:\n"
            f"{output[-LAST_CHARS:]}"
        )
    await _end_lease(app, process.pid)
    return Kill(process.pid, output)


def _start(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "durably.testing.victim"],
        env={**os.environ, "DURABLY_URL": url, "PYTHONUTF8": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )


async def _ended(process: subprocess.Popen[str], orders: str, timeout: float) -> str:
    """Give the process its orders, and wait for its end; returns what it said."""
    talk = asyncio.create_task(asyncio.to_thread(process.communicate, orders))
    try:
        async with asyncio.timeout(timeout):
            output, _ = await asyncio.shield(talk)
            return output
    except TimeoutError:
        process.kill()
        output, _ = await talk
        raise TimeoutError(
            f"The process did not come to its end in {timeout:g} s. It said:\n"
            f"{output[-LAST_CHARS:]}"
        ) from None
    finally:
        if process.poll() is None:
            process.kill()
            with suppress(asyncio.CancelledError):
                await asyncio.shield(talk)


async def _end_lease(app: Durably, pid: int) -> None:
    for worker in await app.workers():
        if worker.alive and worker.pid == pid:
            row = (worker.id, worker.name, worker.pid, worker.queues, 0.0)
            await app.ledger.write(workers.register, *row)


def _source_of(source: Callable[..., Any] | str) -> Source:
    if isinstance(source, str):
        module, _, name = source.partition(":")
        if not module or not name:
            raise ConfigError(f"{source!r}: write module:name, such as support.agents:app.")
        return Source(module, name, None)
    name = getattr(source, "__qualname__", "")
    module = getattr(source, "__module__", "")
    if not name.isidentifier() or not module:
        raise ConfigError(
            f"{source!r} is at the top of no module: another process could not import it."
        )
    try:
        file = inspect.getsourcefile(source)
    except TypeError:
        file = None
    if file is None or not Path(file).is_file():
        raise ConfigError(f"{module}.{name} is in no file: another process could not import it.")
    return Source(module, name, str(Path(file).absolute()))
