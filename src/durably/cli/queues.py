"""Queues: ``durably queues``, which lists them, and its ``pause``, ``resume`` and ``scale``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from durably.cli.asjson import plain
from durably.cli.decide import OPERATOR
from durably.cli.exits import Refused
from durably.cli.options import AppOption, ByOption, DebugOption, JsonOption, UrlOption
from durably.cli.output import print_json, print_table, say
from durably.cli.target import Target, work_on
from durably.cli.values import queue_limit

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.records import QueueRecord, QueueSetting

commands = typer.Typer(rich_markup_mode=None)

NameArgument = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The queue's; it may have no run yet.", show_default=False),
]


@commands.callback(invoke_without_command=True)
def queues(
    context: typer.Context,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List, pause, resume and scale queues.

    Lists them if no command is given. What is decided holds for all workers on all machines, also
    for those that start later; they follow within about a second.
    """
    if context.invoked_subcommand is None:
        list_queues(app, url, as_json)
    elif app or url or as_json or debug:
        raise Refused(f"Write the options behind: durably queues {context.invoked_subcommand} ...")


@commands.command("list")
def list_queues(
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List queues, their workers and their runs by state.

    LIMIT is how many runs of the queue each live worker executes at once.
    """

    async def listed(durably: Durably) -> list[QueueRecord]:
        return await durably.queues()

    found = work_on(Target(app, url).find(), listed)
    if as_json:
        print_json([plain(record) | {"workers": len(record.served_by)} for record in found])
        return
    if not found:
        say("No runs in any queue.")
        return
    from durably.lifecycle import RunState

    states = [state for state in RunState if any(state in record.counts for record in found)]
    print_table(
        ("QUEUE", "WORKERS", "LIMIT", "PAUSED", *(str(state).upper() for state in states)),
        ((*_row(record), *(record.counts.get(state, 0) for state in states)) for record in found),
    )


@commands.command()
def pause(
    name: NameArgument,
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let no run of a queue start, on any worker.

    What is being executed goes on to its end. A run that is handed back, retried or woken waits
    with the others until the queue is resumed.
    """
    said = f"Queue {name!r} is paused; what is being executed goes on."
    _decide(Target(app, url), lambda durably: durably.pause(name, by=by), said, as_json)


@commands.command()
def resume(
    name: NameArgument,
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let runs of a paused queue start again."""
    said = f"Queue {name!r} goes on."
    _decide(Target(app, url), lambda durably: durably.resume(name, by=by), said, as_json)


@commands.command()
def scale(
    name: NameArgument,
    limit: Annotated[
        str,
        typer.Argument(
            metavar="LIMIT",
            help="How many at once on each worker; 'default': as many as it was started with.",
            show_default=False,
        ),
    ],
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Set how many runs of a queue each worker executes at once.

    On each worker, not on all together: with a LIMIT of 5, three workers execute 15. It wins over
    the limit that a worker was started with. Where more are being executed, they go on to their
    end.
    """
    wanted = queue_limit(limit)
    said = f"Queue {name!r}: each worker executes as many at once as it was started with."
    if wanted is not None:
        said = f"Queue {name!r}: each worker executes {wanted} at once."
    _decide(Target(app, url), lambda durably: durably.scale(name, wanted, by=by), said, as_json)


def _decide(
    target: Target,
    decide: Callable[[Durably], Awaitable[QueueSetting]],
    said: str,
    as_json: bool,
) -> None:
    async def decided(durably: Durably) -> tuple[QueueSetting, int]:
        setting = await decide(durably)
        workers = await durably.workers()
        return setting, sum(worker.alive and setting.queue in worker.queues for worker in workers)

    setting, workers = work_on(target.find(), decided)
    if as_json:
        print_json(plain(setting) | {"workers": workers})
        return
    if setting.paused and "paused" not in said:
        said += " It is paused."
    if not workers:
        said += " No live worker serves it."
    say(said)


def _row(record: QueueRecord) -> tuple[object, ...]:
    own = ", ".join(str(limit) for limit in sorted(set(record.served_by.values())))
    limit = own or "-" if record.limit is None else f"{record.limit} (scaled)"
    return record.queue, len(record.served_by), limit, "yes" if record.paused else "no"
