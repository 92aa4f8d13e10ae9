"""``durably transfer``: moves a ledger from SQLite to PostgreSQL, or takes that back."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from durably.cli.asjson import plain
from durably.cli.exits import FAILED, Refused
from durably.cli.options import DebugOption, JsonOption
from durably.cli.output import console, print_json, print_table, say
from durably.cli.text import clean

if TYPE_CHECKING:
    from rich.progress import Progress

    from durably.ledger.transfer.compare import Compared
    from durably.ledger.transfer.news import Begun, Moved, News, Plan


def transfer(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="The ledger to move: sqlite:///agents.db.", show_default=False
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Where to: postgresql://user@host/database, also with ?schema=.",
            show_default=False,
        ),
    ],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be moved, and what is in the way."),
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Give up one that is not finished; this empties TARGET."),
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Move a ledger from SQLite to PostgreSQL.

    Every run moves as it is, and goes on there. Stop the workers first: from its first moment on
    nobody can use SOURCE any more. If it is interrupted, run it again: it goes on where it was.
    """
    if dry_run and undo:
        raise Refused("Give --dry-run or --undo, not both.")
    if dry_run:
        _look(source, target, as_json)
    elif undo:
        _take_back(source, target, as_json)
    else:
        _move(source, target, as_json)


def _look(source: str, target: str, as_json: bool) -> None:
    from durably.ledger.transfer.move import plan

    with console(stderr=True).status("Looking…"):
        found = plan(source, target)
    if as_json:
        print_json(plain(found), indent=None)
    else:
        _say_plan(found)
    if found.obstacles:
        raise typer.Exit(FAILED)


def _say_plan(found: Plan) -> None:
    states = ", ".join(f"{runs:,} {state}" for state, runs in found.states.items())
    say(f"{found.source} holds {_runs(found.rows['runs'])}" + (f": {states}." if states else "."))
    say(", ".join(f"{rows:,} {table}" for table, rows in found.rows.items() if table != "runs"))
    if found.finished:
        say(f"All of them were moved to {found.target}.")
    elif found.began_at is not None:
        say(f"{found.copied_runs:,} of them are at {found.target} already.")
    elif found.makes_tables:
        say(f"{found.target} has no tables yet; they would be made.")
    else:
        say(f"{found.target} has the tables.")
    for obstacle in found.obstacles:
        say(f"In the way: {obstacle}")
    if not found.obstacles and not found.finished:
        say("Nothing is in the way.")


def _take_back(source: str, target: str, as_json: bool) -> None:
    from durably.ledger.transfer.move import take_back

    with console(stderr=True).status("Emptying…"):
        deleted = take_back(source, target)
    if as_json:
        print_json({"deleted": deleted}, indent=None)
    else:
        say(f"Deleted {_runs(deleted)} at the target. {source} is in use again, as it was.")


def _move(source: str, target: str, as_json: bool) -> None:
    from durably.errors import LedgerError, LedgerUnavailable
    from durably.ledger.transfer.move import move

    began = time.monotonic()
    screen = Screen()
    try:
        with screen.shown():
            for news in move(source, target):
                screen.tell(news)
    except LedgerError as error:
        if not as_json and not all(table.same for table in screen.tables):
            _print(screen.tables)
        if isinstance(error, LedgerUnavailable):
            screen.say_how_to_go_on()
        raise
    except KeyboardInterrupt:
        screen.say_how_to_go_on()
        raise
    seconds = time.monotonic() - began
    moved, tables = screen.moved, screen.tables
    assert moved is not None, "it ends so, or raises"
    if as_json:
        print_json(_summary(moved, tables, seconds), indent=None)
    elif moved.already:
        say(f"{moved.source} was moved to {moved.target} before; nothing was left to do.")
    else:
        _print(tables)
        say(
            f"Moved in {seconds:,.1f} s. Start workers and applications with the URL of "
            f"{moved.target}; {moved.source} refuses them from now on."
        )


def _summary(moved: Moved, tables: list[Compared], seconds: float) -> dict[str, object]:
    return {
        "source": moved.source,
        "target": moved.target,
        "already": moved.already,
        "seconds": round(seconds, 3),
        "tables": {
            table.table: {"rows": table.rows[1], "sha256": table.checksums[1]} for table in tables
        },
    }


def _print(tables: list[Compared]) -> None:
    print_table(
        ("TABLE", "ROWS HERE", "ROWS THERE", "SHA-256 HERE", "SHA-256 THERE", ""),
        (
            (
                table.table,
                *(f"{rows:,}" for rows in table.rows),
                *(checksum[:16] for checksum in table.checksums),
                "same" if table.same else "different",
            )
            for table in tables
        ),
    )


def _runs(number: int) -> str:
    return f"{number:,} {'run' if number == 1 else 'runs'}"


class Screen:
    """Shows on stderr how far a transfer is; keeps what is printed at its end."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.tables: list[Compared] = []
        self.moved: Moved | None = None
        self._out = console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows, {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._out,
            transient=True,
            disable=not self._out.is_terminal,
        )
        self._phase: Phase | None = None
        self._to_verify = 0
        self._begun = False

    @contextmanager
    def shown(self) -> Generator[None]:
        """A line for each phase; on a terminal also a bar with rows, rate and the time left."""
        with self._bar:
            yield

    def tell(self, news: News) -> None:
        """Show what a transfer says."""
        from durably.ledger.transfer import news as kinds

        match news:
            case kinds.Begun():
                self._begin(news)
            case kinds.Copied(_, rows):
                self._advance(rows)
            case kinds.Waiting(reason):
                self._say(f"{reason} Trying again.")
            case kinds.Checked(rows):
                if self._phase is None or self._phase.name != "Verifying":
                    self._end_phase()
                    self._phase = Phase(self._bar, "Verifying", 2 * self._to_verify)
                self._advance(2 * rows)
            case kinds.Compared():
                self.tables.append(news)
            case kinds.Moved():
                self._end_phase()
                self.moved = news

    def say_how_to_go_on(self) -> None:
        """Say what is to be done about a transfer that was interrupted."""
        if self._begun:
            self._say(
                "The transfer is not finished: run it again to go on where it is, or with --undo "
                "to give it up."
            )

    def _begin(self, begun: Begun) -> None:
        self._begun = True
        if begun.made_tables:
            self._say(f"{begun.target}: made the tables, as `durably migrate` does.")
        if begun.goes_on:
            runs = f"{begun.copied_runs:,} of {_runs(begun.runs)}"
            self._say(f"Going on: {runs} are at {begun.target} already.")
        else:
            self._say(f"Moving {_runs(begun.runs)} from {begun.source} to {begun.target}.")
        self._to_verify = begun.rows
        self._phase = Phase(self._bar, "Copying", begun.rows, begun.rows_there)

    def _advance(self, rows: int) -> None:
        if self._phase is not None:
            self._phase.advance(rows)

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._say(self._phase.end())
        self._phase = None

    def _say(self, line: str) -> None:
        self._out.print(clean(line), soft_wrap=True)


class Phase:
    """Copying, or verifying: how many rows, how quickly."""

    def __init__(self, bar: Progress, name: str, total: int, done: int = 0) -> None:
        self.name = name
        self._bar = bar
        self._began = time.monotonic()
        self._rows = 0
        self._task = bar.add_task(name, total=total, completed=done, rate="")

    def advance(self, rows: int) -> None:
        self._rows += rows
        self._bar.update(self._task, advance=rows, rate=self._rate)

    def end(self) -> str:
        """Take the bar away; says in one line what was done."""
        self._bar.remove_task(self._task)
        seconds = time.monotonic() - self._began
        return f"{self.name}: {self._rows:,} rows in {seconds:,.1f} s, {self._rate}."

    @property
    def _rate(self) -> str:
        return f"{self._rows / max(time.monotonic() - self._began, 0.001):,.0f} rows/s"
