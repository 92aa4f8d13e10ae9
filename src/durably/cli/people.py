"""What a person says about a call that waits: ``durably approve``, ``deny`` and ``answer``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from durably.cli.decide import OPERATOR, CallArgument, on_run, tell
from durably.cli.exits import Refused
from durably.cli.options import (
    AppOption,
    ByOption,
    DebugOption,
    JsonOption,
    KeyArgument,
    UrlOption,
)
from durably.cli.target import Target
from durably.cli.values import json_object, json_value

if TYPE_CHECKING:
    from durably.run import Run


def approve(
    key: KeyArgument,
    call_id: CallArgument,
    args: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Run it with these arguments instead."),
    ] = None,
    expected: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Refuse if its arguments are others by now."),
    ] = None,
    by: ByOption = OPERATOR,
    note: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a call run that waits for approval."""
    given, seen = json_object("--args", args), json_object("--expected", expected)

    async def approved(run: Run[Any]) -> None:
        await run.approve(call_id, args=given, expected=seen, by=by, note=note)

    record = on_run(Target(app, url), key, approved)
    tell(record, f"Call {call_id} of run {key!r} is approved", as_json)


def deny(
    key: KeyArgument,
    call_id: CallArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; the model reads it.")
    ] = "It was denied.",
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Keep a call from running that waits for a person."""

    async def denied(run: Run[Any]) -> None:
        await run.deny(call_id, reason=reason, by=by)

    record = on_run(Target(app, url), key, denied)
    tell(record, f"Call {call_id} of run {key!r} is denied", as_json)


def answer(
    key: KeyArgument,
    call_id: CallArgument,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="The answer, in words.", show_default=False),
    ] = None,
    as_value: Annotated[
        str | None,
        typer.Option("--value", metavar="JSON", help="The answer as JSON, such as a form."),
    ] = None,
    by: ByOption = OPERATOR,
    note: Annotated[str, typer.Option(help="Why; kept with the decision.")] = "",
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Answer a question, or in the place of a call."""
    if (text is None) == (as_value is None):
        raise Refused("Give the answer as TEXT, or as --value JSON.")
    value: Any = text if as_value is None else json_value("--value", as_value)

    async def answered(run: Run[Any]) -> None:
        await run.answer(call_id, value, by=by, note=note)

    record = on_run(Target(app, url), key, answered)
    tell(record, f"Call {call_id} of run {key!r} is answered", as_json)
