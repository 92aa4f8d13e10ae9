"""``durably demo``: real workers, killed half way, and the proof that nothing was done twice.

Owns the options; the demo itself is an application of its own in `durably.demo`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from durably.cli.beside import Dashboard
from durably.cli.exits import Refused
from durably.cli.options import DebugOption


def demo(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A real model, such as openai:gpt-4o. Default: a scripted one, without a network.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="How many worker processes at a time.")] = 2,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the data goes. Default: a new temporary folder."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A PostgreSQL database, for a demo with Oban; it works in a schema of its own. "
            "Default: DURABLY_URL if that is one, else a SQLite file in the folder.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(help="Leave the temporary folder, or schema, there, to look around in."),
    ] = True,
    web: Annotated[
        bool,
        typer.Option("--web", help="Show it in the dashboard as well, which stays until Ctrl-C."),
    ] = False,
    debug: DebugOption = False,
) -> None:
    """See workers killed in the middle of a charge, and nothing lost, paid or done twice.

    In a terminal, you are asked to approve large refunds.
    """
    postgres_url = _postgres_url(url)
    if web and not keep:
        raise Refused("--web shows what the demo leaves: leave out --no-keep.")
    from durably.demo.main import INTERRUPTED, run_demo

    dashboard = Dashboard()
    try:
        code = run_demo(
            model=model,
            workers=workers,
            folder=folder,
            postgres_url=postgres_url,
            keep=keep,
            beside=dashboard.open if web else None,
        )
        if code != INTERRUPTED:
            dashboard.wait()
    finally:
        dashboard.close()
    raise typer.Exit(code)


def _postgres_url(url: str | None) -> str | None:
    """The server to work on. Another application's SQLite file is none of the demo's business."""
    chosen = url or os.environ.get("DURABLY_URL", "")
    if chosen.startswith(("postgresql", "postgres:")):
        return chosen
    if url is not None:
        raise Refused("--url is for postgresql://…; on SQLite the demo makes its file in --folder.")
    return None
