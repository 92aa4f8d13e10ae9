"""``durably crashtest``: kill a worker at every boundary of a run, and see what its tools do.

Owns the options and the question before tools run; the test itself is `durably.crashtest`'s.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durably.cli.exits import FAILED, Refused
from durably.cli.options import DebugOption, JsonOption
from durably.cli.output import console, print_json
from durably.cli.target import HOW, Target, load_function
from durably.cli.values import duration, json_object, json_value, prompt_text

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.crashtest.laboratory import Experiment, Progress


def crashtest(
    app: Annotated[
        str | None,
        typer.Argument(
            metavar="[APP]",
            help="The application, module:attribute. Default: DURABLY_APP, or the settings.",
            show_default=False,
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Default: the only one.", show_default=False),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What it is asked; - reads stdin.", show_default=False)
    ] = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="An object for the agent's deps factory.")
    ] = None,
    approve: Annotated[
        bool, typer.Option("--approve/--deny", help="What is decided about calls that wait for it.")
    ] = True,
    answer: Annotated[
        str | None, typer.Option(metavar="JSON", help="What is answered when somebody is asked.")
    ] = None,
    signals: Annotated[
        list[str] | None,
        typer.Option(
            "--signal", metavar="NAME=JSON", help="What comes when a tool waits for this signal."
        ),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Counts what the tools did outside: an int, or a dict of tool names to ints.",
        ),
    ] = None,
    setup: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Makes the application's own tables in each new ledger's database; takes its URL.",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A PostgreSQL database, for ledgers in schemas of their own, dropped after each "
            "run. Default: temporary SQLite files.",
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="Only here: checkpoint, tool:after, tool:after#2; may be repeated."),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Only so many, drawn by --seed, each kind first.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For what is drawn.")] = 0,
    max_crashes: Annotated[
        int, typer.Option(min=1, help="If there are more, as many are drawn.")
    ] = 500,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long one process may take.")
    ] = "5m",
    yes: Annotated[bool, typer.Option("--yes", help="Let tools run without being asked.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Kill a worker at every boundary of one run of an agent, and let another finish it.

    The model is asked once; after that its recorded answers are played. The tools really run.
    """
    from durably.crashtest.laboratory import Experiment, run_experiment
    from durably.crashtest.probe import Probe

    path = _path_of(app)
    durably = Target(path).find_app()
    name, scripted = _agent_of(durably, agent)
    if prompt is None:
        raise Refused("What is the agent asked? Add --prompt.")
    experiment = Experiment(
        app=path,
        module="durably.cli.warm",
        agent=name,
        prompt=prompt_text(prompt),
        args=json_object("--args", args),
        scripted=scripted,
        approve=approve,
        answers=() if answer is None else (json_value("--answer", answer),),
        signals=_signals_of(signals or []),
        database=_database_of(database),
        setup=None if setup is None else load_function("--setup", setup),
        probe=None if probe is None else Probe(probe, load_function("--probe", probe)),
        at=at or [],
        at_most=min(max_crashes, sample or max_crashes),
        seed=seed,
        seconds=duration("--timeout", timeout),
    )
    if not (yes or scripted):
        _ask(experiment)
    with _ends_on_sigterm(), _progress() as progress:
        report = run_experiment(experiment, progress)
    from durably.cli.crashed import as_plain, show

    if as_json:
        print_json(as_plain(report))
    else:
        show(report)
    if not report.ok:
        raise typer.Exit(FAILED)


def _path_of(app: str | None) -> str:
    from durably.config import Settings

    path = Settings.load(app=app).app
    if path is None:
        raise Refused(f"Which application? Name it, or set DURABLY_APP: {HOW}.")
    return path


def _agent_of(durably: Durably, agent: str | None) -> tuple[str, bool]:
    """The agent's name, and whether neither it nor any other asks a provider."""
    from durably.crashtest.observed import is_scripted

    registrations = durably.registry.all()
    if agent is None:
        if len(registrations) != 1:
            names = ", ".join(registrations) or "none"
            raise Refused(f"Which agent? Add --agent; there are: {names}.")
        (agent,) = registrations
    if durably.registry.get(agent).agent.model is None:
        raise Refused(f"Agent {agent!r} has no model of its own: write Agent(model, …).")
    return agent, all(is_scripted(one.agent.model) for one in registrations.values())


def _signals_of(options: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name.strip():
            raise Refused(f"--signal {option!r}: write NAME=JSON.")
        found[name.strip()] = json_value(f"--signal {name.strip()}", text)
    return found


def _database_of(url: str | None) -> str | None:
    if url is not None and not url.startswith(("postgresql", "postgres:")):
        raise Refused("--database is for postgresql://…; without it, ledgers are temporary files.")
    return url


def _ask(experiment: Experiment) -> None:
    """Tools act on the world, here as in any run.

    Raises:
        Refused: nobody says that they may.
    """
    what = (
        f"The tools of agent {experiment.agent!r} really run: twice undisturbed, and once more for "
        f"each crash, up to {experiment.at_most} times; its model is asked once."
    )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(f"{what} Add --yes if they may.")
    if not typer.confirm(f"{what} Go on?", err=True):
        raise Refused("Nothing was run.")


@contextmanager
def _ends_on_sigterm() -> Generator[None]:
    """Told to end, clear up as after Ctrl-C."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress() -> Generator[Progress]:
    """Says on a terminal what is done now."""
    out = console(stderr=True)
    if not out.is_terminal:
        yield lambda what, number, of: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=out, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def say(what: str, number: int, of: int) -> None:
            bar.update(task, description=what, completed=number, total=of or None)

        yield say
