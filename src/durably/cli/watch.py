"""``durably watch``: follow a run live until it ends.

Owns one line for each event; a step's line is followed by what the step said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from durably.cli.asjson import event_json
from durably.cli.conversation import Conversation, Entry
from durably.cli.making import Making
from durably.cli.options import (
    AppOption,
    DebugOption,
    FullOption,
    JsonOption,
    KeyArgument,
    UrlOption,
)
from durably.cli.output import console, joined, print_entry, print_json, styled
from durably.cli.target import Target, work_on
from durably.cli.text import one_line

if TYPE_CHECKING:
    from rich.text import Text

    from durably.app import Durably
    from durably.records import Event, StoredMessage
    from durably.run import Run

VALUE_CHARS = 200


def watch(
    key: KeyArgument,
    after: Annotated[int, typer.Option(min=0, help="Only events after the one with this id.")] = 0,
    full: FullOption = False,
    app: AppOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Follow a run live until it ends.

    On a terminal, the messages of a run that streams are shown while they are made. Exits 0
    if it completed, 1 if it did not. Ctrl-C stops the watching, not the run.
    """

    async def followed(durably: Durably) -> None:
        run = await durably.get(key)
        if as_json:
            async for event in run.watch(after):
                print_json(event_json(event), indent=None)
        else:
            await _follow(run, after, full)
        run.output()  # Raises for a run that ended without one: exit 1, and the reason.

    work_on(Target(app, url).find(), followed)


async def _follow(run: Run[Any], after: int, full: bool) -> None:
    out = console()
    said = _Said(run, full)
    # A pipe is given whole messages alone: what is written into it cannot be taken back.
    with Making(out) as making:
        async for event in run.watch(after, deltas=out.is_terminal):
            making.apply(event)
            if event.kind != "delta":
                out.print(_event_line(event), soft_wrap=True)
                for entry in await said.entries(event.data.get("messages") or []):
                    print_entry(out, entry)


class _Said:
    """The messages that events say are there."""

    def __init__(self, run: Run[Any], full: bool) -> None:
        self._run = run
        self._conversation = Conversation(full=full)
        self._unsaid: dict[int, StoredMessage] = {}
        self._newest: int | None = None

    async def entries(self, said: list[int]) -> list[Entry]:
        """The entries of the messages at these positions that were not shown before."""
        newest = self._newest
        if newest is None or max(said, default=newest) > newest:
            # Read once, also where many steps are already past.
            newest = min(said, default=0) - 1 if newest is None else newest
            found = await self._run.messages(after=newest)
            self._unsaid |= {message.seq: message for message in found}
            self._newest = max(self._unsaid, default=newest)
        messages = [self._unsaid.pop(seq) for seq in said if seq in self._unsaid]
        return [entry for message in messages for entry in self._conversation.entries(message)]


def _event_line(event: Event) -> Text:
    texts = [styled(f"{event.at.astimezone():%H:%M:%S}  ", "dim"), styled(event.kind, "bold")]
    if event.attempt:
        texts.append(styled(f"  attempt {event.attempt}", "dim"))
    for name, value in event.data.items():
        if name != "messages" and value not in (None, ""):
            texts.append(styled(f"  {name}=", "dim"))
            texts.append(styled(one_line(str(value), VALUE_CHARS)))
    return joined(*texts)
