"""Keeping house: ``durably prune`` and ``durably migrate``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from durably.cli.exits import FAILED, Refused
from durably.cli.options import AppOption, DebugOption, JsonOption, UrlOption
from durably.cli.output import console, print_json, say
from durably.cli.target import Target, shown_url, work_on
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
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete runs that ended long ago.

    With their history. Asks first, unless --yes is given.
    """
    seconds = duration("--older-than", older_than)
    durably = Target(app, url).find()

    async def count(durably: Durably) -> int:
        return await durably.count_prunable(older_than=seconds, state=state)

    async def delete(durably: Durably) -> int:
        return await _delete(durably, seconds, state, total)

    total = work_on(durably, count)
    if total and not yes:
        _ask(total, older_than)
    deleted = work_on(durably, delete) if total else 0
    if as_json:
        print_json({"deleted": deleted})
    else:
        say(f"Deleted {deleted:,} {'run' if deleted == 1 else 'runs'}.")


def migrate(
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Create or upgrade the ledger's tables."""
    import asyncio

    durably = Target(app, url).find()
    found, now = asyncio.run(_migrate(durably))
    where = shown_url(durably.ledger.url)
    if as_json:
        print_json({"url": where, "found": found, "version": now})
    elif found == now:
        say(f"{where}: schema {now}, nothing to do.")
    elif found == 0:
        say(f"{where}: created, schema {now}.")
    else:
        say(f"{where}: upgraded from schema {found} to {now}.")


async def _migrate(durably: Durably) -> tuple[int, int]:
    # Not by `work_on`: on PostgreSQL there is nothing that could be opened before.
    try:
        return await durably.migrate()
    finally:
        await durably.close()


def _ask(total: int, older_than: str) -> None:
    what = f"{total:,} {'run' if total == 1 else 'runs'} that ended more than {older_than} ago"
    if not sys.stdin.isatty():
        raise Refused(f"This would delete {what}, with their history: add --yes.")
    if not typer.confirm(f"Delete {what}, with their history?", err=True):
        raise typer.Exit(FAILED)


async def _delete(durably: Durably, seconds: float, state: str | None, total: int) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    deleted = 0
    errors = console(stderr=True)
    columns = (TextColumn("Deleting"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("", total=total)
        async for deleted in durably.prune(older_than=seconds, state=state):
            bar.update(task, completed=deleted, total=max(total, deleted))
    return deleted
