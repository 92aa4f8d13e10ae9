"""The demo: real workers deal with tickets and are killed half way; then everything is counted.

Owns the order of things and the exit code; ``durably demo`` and ``make demo`` end up here.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import infer_model
from rich.console import Console

from durably.demo.app import FOLDER, QUEUE, URL, make_app
from durably.demo.approvals import Approver, undecided
from durably.demo.crew import Crew, WorkerDied
from durably.demo.evidence import gather
from durably.demo.keyboard import Keyboard, NobodyThere, at_a_terminal
from durably.demo.office import Office
from durably.demo.outside import Book
from durably.demo.performance import TRAPS, Performance
from durably.demo.screen import Screen, draw_verdict
from durably.demo.site import Site
from durably.demo.tickets import load_tickets
from durably.demo.traps import Traps
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
    postgres_url: str | None = None,
    keep: bool = True,
    beside: Callable[[str], object] | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo; returns the exit code: 0 if everything is as it should be.

    Args:
        model: any pydantic-ai model name; the scripted model by default.
        workers: how many worker processes at a time.
        folder: where the data goes; default: a new temporary folder.
        postgres_url: the database of shop and ledger; default: a SQLite file in the folder.
        keep: leave the temporary folder there, and the tables in PostgreSQL.
        beside: called with the ledger's URL before anything is done in it, to show it elsewhere.

    Raises:
        ConfigError: an option cannot work.
        LedgerError: the server cannot be used.
    """
    console = console or Console(highlight=False)
    _check_options(model, workers, folder)
    # Resolved: the workers are told the same folder, whatever theirs is.
    place = (folder or Path(tempfile.mkdtemp(prefix="durably-demo-"))).resolve()
    place.mkdir(parents=True, exist_ok=True)
    site = Site(place, postgres_url)
    try:
        with site.database.held():
            return _perform(
                site, model, workers, console, beside, keep=keep, temporary=folder is None
            )
    finally:
        with suppress(OSError):
            place.rmdir()  # Nothing came of it.


def _perform(
    site: Site,
    model: str | None,
    workers: int,
    console: Console,
    beside: Callable[[str], object] | None,
    *,
    keep: bool,
    temporary: bool,
) -> int:
    code = INTERRUPTED
    try:
        console.print(f"{site.database.name}: {site.database.shown}", soft_wrap=True)
        code = asyncio.run(_demo(site, model, workers, console, beside))
    except (KeyboardInterrupt, asyncio.CancelledError, NobodyThere):
        print("Interrupted; the workers are stopped.", file=sys.stderr)
    finally:
        Traps(site.traps).disarm()  # Workers that are started later shall work.
        if keep or code != OK:
            console.print(_look_further(site), soft_wrap=True)
        else:
            site.database.remove()
            if temporary:
                shutil.rmtree(site.folder, ignore_errors=True)
    return code


async def _demo(
    site: Site,
    model: str | None,
    workers: int,
    console: Console,
    beside: Callable[[str], object] | None,
) -> int:
    _stop_on_sigterm()
    tickets = load_tickets()
    try:
        site.database.make_shop()
        app = make_app(site, model)
        await app.migrate()
        if beside is not None:
            beside(site.database.url)
        async with app:
            with Crew(site, model) as crew, Screen(tickets, console) as screen:
                approver: Approver = Office(site, screen)
                if at_a_terminal():
                    approver = Keyboard(site, screen)
                performance = Performance(app, site, crew, screen, approver, tickets)
                deadline = DEADLINE_REAL_MODEL_SECONDS if model else DEADLINE_SECONDS
                finished = await performance.run(workers, deadline, targeted=model is None)
            evidence = await gather(app, site, tickets)
    except (DurablyError, WorkerDied, OSError, *site.database.failures) as error:
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
    if folder is not None and Site(folder).used:
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
    where = " and ".join(filter(None, (str(site.folder), site.database.remains)))
    killed = [ticket for kill in Book(site.kills).entries() for ticket, _ in kill["in_doubt"]]
    shows = [f"  {site.command(f'show {ticket}')}" for ticket in dict.fromkeys(killed)]
    return "\n".join(
        [
            f"The data: {where}",
            f"  {site.command('web')}",
            f"  {site.command('runs')}",
            *shows,
            *_decide(site),
        ]
    )


def _decide(site: Site) -> list[str]:
    """How to decide later what the demo was left with, and have it carried out."""
    waiting = list[tuple[str, str]]()
    with suppress(*site.database.failures):  # It may have come to nothing: then nothing waits.
        waiting = undecided(site.database)
    if not waiting:
        return []
    settings = {FOLDER: str(site.folder)} | (
        {URL: site.database.shown} if site.postgres_url else {}
    )
    words = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    worker = f"worker --app durably.demo.app:app --queue {QUEUE}"
    return [
        "Still waiting for approval; decide whenever you like, and start a worker for it:",
        *(f"  {site.command(f'approve {key} {call_id}')}" for key, call_id in waiting),
        f"  {words} {site.durably} {worker}",
    ]
