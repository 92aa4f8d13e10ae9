"""``durably enqueue``: store a run, and wait for its output if asked to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durably.cli.asjson import parsed, run_json
from durably.cli.options import AppOption, DebugOption, JsonOption, UrlOption
from durably.cli.output import print_json, say
from durably.cli.target import Target, work_on
from durably.cli.text import clean
from durably.cli.values import budget_limits, duration, json_object, prompt_text

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.records import RunRecord
    from durably.run import Run


def enqueue(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Its name.", show_default=False)],
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="PROMPT", help="What it is asked; - reads stdin.", show_default=False
        ),
    ],
    key: Annotated[
        str | None, typer.Option(help="Unique among all runs; an existing key finds its run.")
    ] = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="An object for the agent's deps factory.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Default: the agent's.")] = None,
    priority: Annotated[int, typer.Option(help="0 (first) to 9.")] = 0,
    max_attempts: Annotated[
        int | None, typer.Option(min=1, help="Failures allowed. Default: the agent's.")
    ] = None,
    delay: Annotated[
        str, typer.Option(metavar="DURATION", help="How long until it is due: 30, 5m, 2h, 1d.")
    ] = "0",
    tag: Annotated[list[str] | None, typer.Option(help="A label; may be repeated.")] = None,
    meta: Annotated[
        str | None, typer.Option(metavar="JSON", help="An object for the application's own use.")
    ] = None,
    unique_for: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="Find the same run if it was enqueued so lately; not with key."
        ),
    ] = None,
    thread: Annotated[
        str | None, typer.Option(help="The conversation that it continues, after its other runs.")
    ] = None,
    on_busy: Annotated[
        str,
        typer.Option(
            help="While another run of the thread is going: queue, reject, interrupt or steer."
        ),
    ] = "queue",
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIMITS",
            help="What it may spend, over all its attempts: usd=1.50,requests=20,tokens=100000,"
            "tool_calls=10; on_limit=discard ends it there, else it waits for more.",
        ),
    ] = None,
    stream: Annotated[
        bool | None,
        typer.Option(
            "--stream/--no-stream",
            help="Show its messages while they are made, to whoever watches. Default: the agent's.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and print the output.")] = False,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Store a run for a worker to execute.

    With an application, AGENT is one of its agents; with --url alone, any name.
    """
    options: dict[str, Any] = {
        "key": key,
        "args": json_object("--args", args),
        "queue": queue,
        "priority": priority,
        "max_attempts": max_attempts,
        "delay": duration("--delay", delay),
        "tags": tag or (),
        "meta": json_object("--meta", meta),
        "thread": thread,
        "on_busy": on_busy,
        "stream": stream,
        "unique_for": None if unique_for is None else duration("--unique-for", unique_for),
    }
    if budget:
        from durably.budgets import Budget

        options["budget"] = Budget.from_json(budget_limits("--budget", budget))
    target = Target(app, url)
    durably = target.find()
    if target.names_app:
        durably.registry.get(agent)  # A name that no worker would know is a mistake here.
    text = prompt_text(prompt)

    async def stored(durably: Durably) -> RunRecord:
        run: Run[Any] = await durably.enqueue(agent, text, **options)
        if wait:
            await run.result(wait_suspended=False)
        return run.record

    record = work_on(durably, stored, create=True)
    if as_json:
        print_json(run_json(record))
    elif wait:
        _print_output(record)
    else:
        say(record.key)


def _print_output(record: RunRecord) -> None:
    """The output alone: as it is into a pipe, without what a terminal would obey on a terminal."""
    output = parsed(record.output)
    if not isinstance(output, str):
        print_json(output)
        return
    print(clean(output) if sys.stdout.isatty() else output)
