"""``durably demo``: real workers, killed half way, and the proof that nothing was done twice.

Owns the options; the demo itself is an application of its own in `durably.demo`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    keep: Annotated[
        bool, typer.Option(help="Leave the temporary folder there, to look around in.")
    ] = True,
    debug: DebugOption = False,
) -> None:
    """See workers killed in the middle of a charge, and nothing lost, paid or done twice."""
    from durably.demo.main import run_demo

    raise typer.Exit(run_demo(model=model, workers=workers, folder=folder, keep=keep))
