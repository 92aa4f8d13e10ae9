"""Keeping house: ``durably prune`` and ``durably migrate``."""

from __future__ import annotations

import sys
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Annotated

import typer

from durably.cli.decide import OPERATOR
from durably.cli.exits import FAILED, Refused
from durably.cli.options import AppOption, ByOption, DebugOption, JsonOption, UrlOption
from durably.cli.output import console, print_json, say
from durably.cli.target import Target, work_on
from durably.cli.values import duration

if TYPE_CHECKING:
    from durably.app import Durably


def prune(
    older_than: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="Runs that ended longer ago: 12h, 30d.", show_default=False
        ),
    ],
    state: Annotated[
        str | None, typer.Option(help="Only completed, discarded or cancelled ones.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete runs that ended long ago.

    With their history, and what the audit trail says of that time and of no run that is left. Asks
    first, unless --yes is given.
    """
    seconds = duration("--older-than", older_than)
    durably = Target(app, url).find()

    async def count(durably: Durably) -> int:
        return await durably.count_prunable(older_than=seconds, state=state)

    async def delete(durably: Durably) -> int:
        return await _delete(durably, seconds, state, total, by)

    total = work_on(durably, count)
    if total and not yes:
        _ask(total, older_than)
    deleted = work_on(durably, delete) if total else 0
    if as_json:
        print_json({"deleted": deleted})
    else:
        say(f"Deleted {deleted:,} {'run' if deleted == 1 else 'runs'}.")


def migrate(
    sql: Annotated[
        bool,
        typer.Option("--sql", help="Only print what is needed, as a script for psql (PostgreSQL)."),
    ] = False,
    since: Annotated[
        int | None,
        typer.Option(
            "--from",
            metavar="VERSION",
            help="With --sql: the schema that is there, 0 for none; asks no server.",
        ),
    ] = None,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Create or upgrade the ledger's tables.

    On PostgreSQL Oban's as well. Nothing else makes tables there.
    """
    import asyncio

    durably = Target(app, url).find()
    if sql:
        if as_json:
            raise Refused("Give --sql or --json, not both.")
        print(asyncio.run(_closed(durably, durably.migration_sql(since))), end="")
        return
    if since is not None:
        raise Refused("--from is for --sql: without it, the schema that is there is looked up.")
    found, now = asyncio.run(_closed(durably, durably.migrate()))
    where, oban = durably.ledger.url, durably.ledger.oban_tables
    if as_json:
        print_json({"url": where, "found": found, "version": now, "oban": oban})
    else:
        _tell(where, found, now, oban)


def _tell(where: str, found: int, now: int, oban: str | None) -> None:
    if found == now and oban in (None, "unchanged"):
        say(f"{where}: schema {now}, nothing to do.")
        return
    if found == now:
        what = f"schema {now}"
    else:
        what = f"upgraded from schema {found} to {now}" if found else f"created, schema {now}"
    say(f"{where}: {what}{OBAN_TABLES[oban]}.")


OBAN_TABLES = {
    None: "",
    "created": "; Oban's tables created",
    "completed": "; Oban's tables were there and have been completed",
    "unchanged": "; Oban's tables are as they were",
}


async def _closed[T](durably: Durably, work: Awaitable[T]) -> T:
    """Do work that opens what it needs itself: there may be nothing that could be opened yet."""
    try:
        return await work
    finally:
        await durably.close()


def _ask(total: int, older_than: str) -> None:
    what = f"{total:,} {'run' if total == 1 else 'runs'} that ended more than {older_than} ago"
    if not sys.stdin.isatty():
        raise Refused(f"This would delete {what}, with their history: add --yes.")
    if not typer.confirm(f"Delete {what}, with their history?", err=True):
        raise typer.Exit(FAILED)


async def _delete(durably: Durably, seconds: float, state: str | None, total: int, by: str) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    deleted = 0
    errors = console(stderr=True)
    columns = (TextColumn("Deleting"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=total)
        async for deleted in durably.prune(older_than=seconds, state=state, by=by):
            bar.update(task, completed=deleted, total=max(total, deleted))
    return deleted
