"""``durably worker``: a process that executes runs until it is told to stop.

Owns signals, logs and the end of the process; how a worker leaves is the library's.
"""

from __future__ import annotations

import copy
import gc
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from durably.cli.exits import FAILED, Refused, debugging, report
from durably.cli.options import AppOption, DebugOption
from durably.cli.target import Target, shown_url
from durably.cli.text import clean
from durably.cli.values import duration, queue_limits
from durably.errors import LedgerUnavailable

if TYPE_CHECKING:
    import asyncio

    from durably.app import Durably
    from durably.worker import Worker

log = logging.getLogger("durably.cli")

LEVELS = ("debug", "info", "warning", "error")

AGAIN_SECONDS = 0.5
"""How long until it is tried again to start."""


class Options(NamedTuple):
    """How the worker works; None is the library's or the settings' default."""

    queues: dict[str, int] | None
    lease: float | None
    grace: float | None
    name: str | None
    metrics: bool = False
    patience: float = 60.0


def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LIMIT",
            help="A queue, and how many of its runs at once; may be repeated. Default: every "
            "queue of the application's agents, 20 each.",
        ),
    ] = None,
    lease: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="Without a heartbeat for so long, others take its runs. Default: 30.",
        ),
    ] = None,
    grace: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="How long runs may go on after SIGTERM. Default: 30."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="For people. Default: the host's.")] = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Tell Oban Web how the queues do; on PostgreSQL.")
    ] = False,
    patience: Annotated[
        str,
        typer.Option(
            metavar="SECONDS",
            help="How long to wait for a PostgreSQL server that is away when the worker starts.",
        ),
    ] = "60",
    level: Annotated[str, typer.Option("--log-level", help=" | ".join(LEVELS))] = "info",
    app: AppOption = None,
    debug: DebugOption = False,
) -> None:
    """Execute runs until told to stop.

    SIGTERM or Ctrl-C: claims nothing more, hands runs back at their next checkpoint and exits 0
    within the grace period. A second one exits at once.
    """
    _exit_on_signals()
    import asyncio

    from durably.worker import DEFAULT_CONCURRENCY

    options = Options(
        queues=queue_limits(queue, DEFAULT_CONCURRENCY) if queue else None,
        lease=None if lease is None else duration("--lease", lease),
        grace=None if grace is None else duration("--grace", grace),
        name=name,
        metrics=metrics,
        patience=duration("--patience", patience),
    )
    log_to_stderr(level)
    durably = Target(app).find_app()
    # What was imported stays: to look at all of it in a full collection holds up every run.
    gc.freeze()
    with asyncio.Runner() as runner:
        try:
            runner.run(_work(durably, options))
        except (SystemExit, KeyboardInterrupt) as error:
            # Of a task that nobody waits for. Not handed back: who does this each time is counted.
            log.critical("code of the application's has ended the event loop with %r", error)
            _exit(FAILED)


async def _work(durably: Durably, options: Options) -> None:
    """Serve until told to stop, then end the process, whatever its threads are doing."""
    try:
        code = await _serve(durably, options)
    except Exception as error:
        code = report(error)
    _exit(code)


async def _serve(durably: Durably, options: Options) -> int:
    """Work; returns 0 if the worker was told to stop, 1 if it left because a duty failed."""
    import asyncio

    stop = asyncio.Event()
    _stop_on_signals(stop, asyncio.get_running_loop())
    async with AsyncExitStack() as stack:
        running = await _started(durably, options, stop, stack)
        if running is None:
            return 0
        _announce(durably, running)
        await _first(stop, running.stopped)
        told = stop.is_set()
    await durably.close()
    log.info("worker %s has left", running.id)
    return 0 if told else FAILED


async def _started(
    durably: Durably, options: Options, stop: asyncio.Event, stack: AsyncExitStack
) -> Worker | None:
    """Start the worker, as soon as the database lets it; None if it was told to stop before.

    Raises:
        LedgerUnavailable: it has not been there for so long.
    """
    import asyncio

    patience = options.patience if durably.ledger.dialect == "postgres" else 0.0
    give_up_at = time.monotonic() + patience
    said = ""
    while not stop.is_set():
        worker = durably.worker(
            options.queues,
            lease=options.lease,
            grace=options.grace,
            name=options.name,
            oban={"metrics": True} if options.metrics else None,
        )
        try:
            return await stack.enter_async_context(worker)
        except LedgerUnavailable as error:
            if time.monotonic() > give_up_at:
                raise
            if str(error) != said:
                said = str(error)
                log.warning("waiting up to %g s to start: %s", patience, error)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), timeout=AGAIN_SECONDS)
    return None


async def _first(*events: asyncio.Event) -> None:
    import asyncio

    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def _exit_on_signals() -> None:
    """While the application is imported there is nothing to hand back: leave at once, well."""

    def leave(_number: int, _frame: object) -> None:
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)


def _stop_on_signals(stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """The first signal asks the worker to leave, the second ends the process at once.

    Python's own handlers rather than the loop's: they also run while a tool blocks the loop.
    """

    received: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _announce(durably: Durably, running: Worker) -> None:
    options = running.options
    log.info(
        "worker %s serves %s; lease %g s, grace %g s, ledger %s",
        running.id,
        ", ".join(f"{name}={limit}" for name, limit in options.queues.items()),
        options.lease_seconds,
        options.grace_seconds,
        shown_url(durably.ledger.url),
    )


class _CleanFormatter(logging.Formatter):
    """Log lines quote errors, and errors quote models and tools."""

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(_in_one_line(record)))


def _in_one_line(record: logging.LogRecord) -> logging.LogRecord:
    """Oban tells of each query that fails while the database is away, with a traceback each."""
    if record.exc_info is None or not record.name.startswith("oban.") or debugging():
        return record
    short = copy.copy(record)
    short.msg, short.args = f"{record.getMessage()}: {record.exc_info[1]}", ()
    short.exc_info = short.exc_text = None
    return short


def log_to_stderr(level: str) -> None:
    """Log lines go to stderr, without anything that a terminal would obey.

    Raises:
        Refused: there is no such level.
    """
    if level.lower() not in LEVELS:
        raise Refused(f"--log-level {level!r}: use {', '.join(LEVELS)}.")
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_CleanFormatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
        logging.getLogger().addHandler(handler)
    logging.getLogger("durably").setLevel(level.upper())


def _exit(code: int) -> None:
    """End the process although a tool may still block a thread: Python would wait for it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
