"""Who did what: ``durably audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from durably.cli.asjson import plain
from durably.cli.options import AppOption, DebugOption, JsonOption, UrlOption
from durably.cli.output import moment_text, print_json, print_table, say
from durably.cli.target import Target, work_on
from durably.cli.text import one_line

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.records import Action

DATA_CHARS = 80


def audit(
    run: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Only what was done to this run, there or not any more."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    before: Annotated[
        int | None, typer.Option(help="Only actions before the one with this id: the next page.")
    ] = None,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List who did what, newest first.

    Decisions, cancels and retries, signals, what was set for queues and budgets, and pruning.
    """

    async def listed(durably: Durably) -> list[Action]:
        return await durably.actions(run=run, before=before, limit=limit)

    found = work_on(Target(app, url).find(), listed)
    if as_json:
        print_json([plain(action) for action in found])
        return
    if not found:
        say("Nobody did anything.")
        return
    print_table(("ID", "WHEN", "WHO", "ACTION", "RUN", "ABOUT", "WITH"), map(_row, found))
    if len(found) == limit:
        say(f"\nOlder ones: --before {found[-1].id}")


def _row(action: Action) -> tuple[object, ...]:
    said = ", ".join(f"{name}={value}" for name, value in action.data.items())
    return (
        action.id,
        moment_text(action.at),
        action.by,
        action.action,
        action.run_key or "-",
        action.subject or "-",
        one_line(said, DATA_CHARS),
    )
