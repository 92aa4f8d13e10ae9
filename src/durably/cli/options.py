"""The options that several commands share, each written once.

Owns their names and help texts; what they mean is in `target` and `exits`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from durably.cli.exits import enable_debug

AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="The application: a Durably, or a function that returns one; attribute 'app' if not "
        "named. Default: DURABLY_APP, durably.toml, [tool.durably] in pyproject.toml.",
        show_default=False,
    ),
]

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The ledger, without an application: sqlite:///agents.db, postgresql://host/database. "
        "Default: the application's, else DURABLY_URL, durably.toml, [tool.durably] in "
        "pyproject.toml.",
        show_default=False,
    ),
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show tracebacks of errors.", callback=enable_debug),
]

KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="The run's key.", show_default=False)
]

ByOption = Annotated[str, typer.Option("--by", help="Who decides; kept in the audit trail.")]

FullOption = Annotated[bool, typer.Option("--full", help="Cut nothing short.")]
