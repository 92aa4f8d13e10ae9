"""Budgets: ``durably budgets``, which lists shared ones, and its ``set``, ``remove``, ``raise``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durably.cli.asjson import plain
from durably.cli.decide import OPERATOR, on_run, tell
from durably.cli.exits import Refused
from durably.cli.options import (
    AppOption,
    ByOption,
    DebugOption,
    JsonOption,
    KeyArgument,
    UrlOption,
)
from durably.cli.output import moment_text, print_json, print_table, say
from durably.cli.target import Target, work_on
from durably.cli.values import budget_limits

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.budgets import SharedBudget
    from durably.run import Run

commands = typer.Typer(rich_markup_mode=None)

LimitsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="LIMITS...",
        help="requests=20, tokens=100000, tool_calls=10, usd=1.50.",
        show_default=False,
    ),
]

ThreadOption = Annotated[str | None, typer.Option(help="Of the runs of this thread.")]
TagOption = Annotated[str | None, typer.Option(help="Of the runs with this tag.")]


@commands.callback(invoke_without_command=True)
def budgets(
    context: typer.Context,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List, set and remove the budgets that runs share; raise that of one run.

    Lists them if no command is given.
    """
    if context.invoked_subcommand is None:
        list_budgets(app, url, as_json)
    elif app or url or as_json or debug:
        raise Refused(f"Write the options behind: durably budgets {context.invoked_subcommand} ...")


@commands.command("list")
def list_budgets(
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the budgets that runs share, and what they have spent.

    A run's own is shown by `durably show`.
    """

    async def listed(durably: Durably) -> list[SharedBudget]:
        return await durably.budgets()

    found = work_on(Target(app, url).find(), listed)
    if as_json:
        print_json([_as_json(budget) for budget in found])
        return
    if not found:
        say("No runs share a budget.")
        return
    columns = ("OF", "NAME", "REQUESTS", "TOKENS", "TOOL CALLS", "USD", "AT A LIMIT", "SET")
    print_table(columns, map(_row, found))


@commands.command("set")
def set_budget(
    limits: LimitsArgument,
    thread: ThreadOption = None,
    tag: TagOption = None,
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Limit what the runs of a thread, or with a tag, spend together.

    Set again, all its limits are replaced, and what was spent stays. At a limit the runs wait, or
    are discarded with on_limit=discard. Those that wait go on if there is room now.
    """
    from durably.budgets import Budget

    budget = Budget.from_json(budget_limits("LIMITS", limits))

    async def done(durably: Durably) -> SharedBudget:
        return await durably.set_budget(budget, thread=thread, tag=tag, by=by)

    record = work_on(Target(app, url).find(), done)
    if as_json:
        print_json(_as_json(record))
    else:
        spent = ", ".join(_spent(record))
        say(f"The budget of {record.scope} {record.name!r} is set; spent of it: {spent}.")


@commands.command("remove")
def remove_budget(
    thread: ThreadOption = None,
    tag: TagOption = None,
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    debug: DebugOption = False,
) -> None:
    """Limit the runs of a thread, or with a tag, together no more.

    What they spent is forgotten: a budget that is set later begins with nothing spent.
    """

    async def done(durably: Durably) -> None:
        await durably.remove_budget(thread=thread, tag=tag, by=by)

    work_on(Target(app, url).find(), done)
    scope, name = ("thread", thread) if thread else ("tag", tag)
    say(f"The budget of {scope} {name!r} is removed.")


@commands.command("raise")
def raise_budget(
    key: KeyArgument,
    limits: LimitsArgument,
    by: ByOption = OPERATOR,
    note: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Set limits of one run's own budget.

    Of what it spends altogether: a run that has spent $1.50 goes on with usd=2. It does so if it
    waits for it. Limits that are not named stay.
    """
    given = budget_limits("LIMITS", limits)
    if "on_limit" in given:
        raise Refused("What happens at a limit is declared when the run is enqueued.")

    async def raised(run: Run[Any]) -> None:
        await run.raise_budget(**given, by=by, note=note)

    record = on_run(Target(app, url), key, raised)
    tell(record, f"The budget of run {key!r} is set", as_json)


def _as_json(budget: SharedBudget) -> dict[str, Any]:
    from durably.budgets import WHAT, amount

    spent = {what: amount(what, budget.spent.of(what)) for what in WHAT}
    shown = {"scope": budget.scope, "name": budget.name}
    return shown | {
        "limits": budget.limits.to_json(),
        "spent": spent,
        "changed_at": plain(budget.changed_at),
    }


def _spent(budget: SharedBudget) -> Iterator[str]:
    from durably.budgets import WHAT, describe

    for what in WHAT:
        if (limit := budget.limits.limit(what)) is not None:
            yield describe(what, limit, budget.spent.of(what))


def _row(budget: SharedBudget) -> tuple[object, ...]:
    from durably.budgets import COUNTED, describe

    cells = [describe("usd", budget.limits.limit("usd"), budget.spent.of("usd"))]
    for what in reversed(COUNTED):
        limit, spent = budget.limits.limit(what), budget.spent.of(what)
        cells.insert(0, f"{spent:,}" if limit is None else f"{spent:,} of {limit:,}")
    then = {"suspend": "wait", "discard": "discard"}[budget.limits.on_limit]
    return (budget.scope, budget.name, *cells, then, moment_text(budget.changed_at))
