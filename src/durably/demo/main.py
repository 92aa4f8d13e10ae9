"""The demo: real workers deal with tickets and are killed half way; then everything is counted.

Owns the order of things and the exit code; ``durably demo`` and ``make demo`` end up here.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from pathlib import Path

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import infer_model
from rich.console import Console

from durably.demo import shop
from durably.demo.app import make_app
from durably.demo.crew import Crew, WorkerDied
from durably.demo.evidence import gather
from durably.demo.outside import Book
from durably.demo.performance import TRAPS, Performance
from durably.demo.screen import Screen, draw_verdict
from durably.demo.site import Site
from durably.demo.tickets import load_tickets
from durably.demo.verdict import judge, right, summary
from durably.errors import ConfigError, DurablyError

DEADLINE_SECONDS = 180.0
"""A scripted run takes about 20 seconds."""

DEADLINE_REAL_MODEL_SECONDS = 900.0

OK, WRONG, INTERRUPTED = 0, 1, 130


def run_demo(
    *,
    model: str | None = None,
    workers: int = 2,
    folder: Path | None = None,
    keep: bool = True,
    console: Console | None = None,
) -> int:
    """Run the demo; returns the exit code: 0 if everything is as it should be.

    Args:
        model: any pydantic-ai model name; the scripted model by default.
        workers: how many worker processes at a time.
        folder: where the data goes; default: a new temporary folder.
        keep: leave the temporary folder there.

    Raises:
        ConfigError: an option cannot work.
    """
    console = console or Console(highlight=False)
    _check_options(model, workers, folder)
    # Resolved: the workers are told the same folder, whatever theirs is.
    place = (folder or Path(tempfile.mkdtemp(prefix="durably-demo-"))).resolve()
    place.mkdir(parents=True, exist_ok=True)
    code = INTERRUPTED
    try:
        code = asyncio.run(_demo(Site(place), model, workers, console))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("Interrupted; the workers are stopped.", file=sys.stderr)
    finally:
        if folder is None and not keep and code == OK:
            shutil.rmtree(place, ignore_errors=True)
        else:
            console.print(_look_further(Site(place)), soft_wrap=True)
    return code


async def _demo(site: Site, model: str | None, workers: int, console: Console) -> int:
    _stop_on_sigterm()
    tickets = load_tickets()
    try:
        shop.open_shop(site.database)
        async with make_app(site, model) as app:
            with Crew(site, model) as crew, Screen(tickets, console) as screen:
                performance = Performance(app, site, crew, screen, tickets)
                deadline = DEADLINE_REAL_MODEL_SECONDS if model else DEADLINE_SECONDS
                finished = await performance.run(workers, deadline, targeted=model is None)
            evidence = await gather(app, site, tickets)
    except (DurablyError, WorkerDied, sqlite3.Error, OSError) as error:
        print(f"The demo broke off: {error}", file=sys.stderr)
        return WRONG
    checks = judge(evidence, scripted=model is None, traps=len(TRAPS))
    draw_verdict(checks, console)
    console.print(f"{summary(evidence)}\n")
    if not finished:
        print(
            "Not every ticket was dealt with in time, or a worker did not leave as told.",
            file=sys.stderr,
        )
    return OK if finished and right(checks) else WRONG


def _check_options(model: str | None, workers: int, folder: Path | None) -> None:
    if workers < 1:
        raise ConfigError(f"--workers {workers}: at least 1.")
    if folder is not None and Site(folder).database.exists():
        raise ConfigError(f"{folder} holds the data of an earlier demo; name another folder.")
    if model is not None:
        try:
            infer_model(model)
        except (UserError, ImportError, ValueError) as error:
            raise ConfigError(f"--model {model}: {' '.join(str(error).split())}") from error


def _stop_on_sigterm() -> None:
    task = asyncio.current_task()
    assert task is not None, "called in the demo's own task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _look_further(site: Site) -> str:
    command = Path(sys.executable).with_name("durably")
    durably = "durably" if shutil.which("durably") else os.path.relpath(command)
    show = [
        f"show {ticket}" for kill in Book(site.kills).entries() for ticket, _ in kill["in_doubt"]
    ]
    commands = [f"  {durably} {command} --url {site.url}" for command in ("runs", *show)]
    return "\n".join([f"The data: {site.folder}", *commands])
