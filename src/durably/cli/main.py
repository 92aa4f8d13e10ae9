"""The command ``durably``: which commands there are, and how errors end them.

Imports the commands, which import the library only when they run: ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from io import TextIOWrapper
from typing import Annotated

import typer
from typer.main import get_command

from durably import __version__
from durably.cli import (
    audit,
    budgets,
    crashtest,
    decide,
    demo,
    doctor,
    enqueue,
    exits,
    maintain,
    people,
    queues,
    runs,
    show,
    transfer,
    watch,
    web,
    worker,
)

app = typer.Typer(
    name="durably",
    help="Durable runs of Pydantic AI agents: runs that survive crashes without paying or acting "
    "twice.",
    epilog="Exit codes: 0 done; 1 the run did not complete, or doctor or crashtest found a "
    "problem; 2 it cannot be done as asked; 70 a bug in durably; 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help: drawing it with rich would cost more time than all the rest.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"durably {__version__}")
        raise typer.Exit


@app.callback()
def durably(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Holds what comes before a command's name; the help text is the application's."""


for command in (
    demo.demo,
    worker.worker,
    web.web,
    enqueue.enqueue,
    runs.runs,
    show.show,
    watch.watch,
    runs.inbox,
    people.approve,
    people.deny,
    people.answer,
    decide.resolve,
    decide.signal,
    decide.cancel,
    decide.retry,
    audit.audit,
    maintain.prune,
    maintain.migrate,
    transfer.transfer,
    doctor.doctor,
    crashtest.crashtest,
):
    app.command()(command)
app.add_typer(queues.commands, name="queues")
app.add_typer(budgets.commands, name="budgets")


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    exits.enable_debug(False)
    try:
        _check_text(arguments)
        all_commands()(args=arguments, prog_name="durably")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        code = exits.report(error)
    else:
        code = 0
    return exits.flush(code)


@cache
def all_commands() -> Callable[..., object]:
    """All commands. Made once: that takes ten times as long as most commands do."""
    return get_command(app)


def _check_text(arguments: list[str]) -> None:
    """Refuse what the ledger could not store; Python passes foreign bytes on as surrogates."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise exits.Refused(f"The argument {argument!a} is not UTF-8.") from None


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot show a character gets its number, not a crash.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
