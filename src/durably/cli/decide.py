"""What an operator decides: ``durably resolve``, ``cancel``, ``retry`` and ``signal``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from durably.cli.asjson import run_json
from durably.cli.exits import Refused
from durably.cli.options import (
    AppOption,
    ByOption,
    DebugOption,
    JsonOption,
    KeyArgument,
    UrlOption,
)
from durably.cli.output import print_json, say
from durably.cli.target import Target, work_on
from durably.cli.values import json_value

if TYPE_CHECKING:
    from durably.app import Durably
    from durably.records import RunRecord
    from durably.run import Run

OPERATOR = "operator"

CallArgument = Annotated[
    str,
    typer.Argument(
        metavar="CALL_ID", help="The call, such as 1.0: see `durably inbox`.", show_default=False
    ),
]


def resolve(
    key: KeyArgument,
    call_id: CallArgument,
    done: Annotated[
        str | None, typer.Option(metavar="JSON", help="It happened; this is its result.")
    ] = None,
    failed: Annotated[
        str | None, typer.Option(metavar="TEXT", help="It failed; this is what the model is told.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="It did not happen: run it again.")
    ] = False,
    by: ByOption = OPERATOR,
    note: Annotated[str, typer.Option(help="Why; kept in the run's events.")] = "",
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Settle a tool call in doubt.

    Also one that waits for an answer. The run goes on once nothing of it is left to decide.
    """
    if [done is not None, failed is not None, again].count(True) != 1:
        raise Refused("Say what became of the call: one of --done JSON, --failed TEXT, --again.")
    decision: dict[str, Any] = {"failed": failed, "again": again}
    if done is not None:
        decision["done"] = json_value("--done", done)

    async def settle(run: Run[Any]) -> None:
        await run.resolve(call_id, by=by, note=note, **decision)

    record = on_run(Target(app, url), key, settle)
    tell(record, f"Call {call_id} of run {key!r} is settled", as_json)


def cancel(
    key: KeyArgument,
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Cancel a run.

    An executing one stops within a second.
    """

    async def cancelled(run: Run[Any]) -> None:
        await run.cancel(by=by)

    record = on_run(Target(app, url), key, cancelled)
    tell(record, f"Run {key!r} is asked to stop", as_json)


def retry(
    key: KeyArgument,
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a stopped run go on where it was.

    A discarded or cancelled one, or one that waits because its agent changed. One that waits for a
    budget looks at it again.
    """

    async def retried(run: Run[Any]) -> None:
        await run.retry(by=by)

    record = on_run(Target(app, url), key, retried)
    tell(record, f"Run {key!r} goes on", as_json)


def signal(
    key: KeyArgument,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What the run waits for.", show_default=False)
    ],
    payload: Annotated[str, typer.Option(metavar="JSON", help="What the wait returns.")] = "null",
    signal_id: Annotated[
        str | None,
        typer.Option("--id", help="Your own id of it: sent again under it, it does nothing."),
    ] = None,
    by: ByOption = OPERATOR,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Send a signal to a run that waits for one.

    Or that will: it is kept until a tool of the run waits for it, and arrives once.
    """
    value = json_value("--payload", payload)

    async def sent(durably: Durably) -> RunRecord:
        return (await durably.signal(key, name, value, signal_id=signal_id, by=by)).record

    record = work_on(Target(app, url).find(), sent)
    tell(record, f"Signal {name!r} is sent to run {key!r}", as_json)


def on_run(target: Target, key: str, act: Callable[[Run[Any]], Awaitable[None]]) -> RunRecord:
    """The run as it is once something was done to it."""

    async def acted(durably: Durably) -> RunRecord:
        run = await durably.get(key)
        await act(run)
        return run.record

    return work_on(target.find(), acted)


def tell(record: RunRecord, what: str, as_json: bool) -> None:
    """Say what was done, and how the run is now."""
    if as_json:
        print_json(run_json(record))
    else:
        say(f"{what}; it is {record.state} now.")
