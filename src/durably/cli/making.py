"""The message in the making, on a terminal: below what is printed, until it is printed itself.

Owns the lines at the bottom; what is in the making is `durably.Draft`'s.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from durably.cli.conversation import Entry
from durably.cli.output import LABEL_WIDTH, joined, styled
from durably.cli.text import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from durably.agents.draft import Draft
    from durably.records import Event

LINES = 12
"""How many lines of it are shown: the last ones."""

VALUE_CHARS = 400


class Making:
    """Shows what is in the making, while the block lasts."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._draft: Draft | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def apply(self, event: Event) -> None:
        """Take an event of the run, before it is printed."""
        if self._draft is None and event.kind == "delta":
            # Here: what has no deltas need not wait for the agent framework.
            from durably.agents.draft import Draft

            self._draft = Draft()
        if self._draft is None or not self._draft.apply(event):
            return
        lines = [line for entry in _entries(self._draft) for line in self._lines(entry)]
        if lines:
            self._show(lines[-LINES:])
        else:
            self._stop()

    def _lines(self, entry: Entry) -> list[Text]:
        found = entry.body.wrap(self._out, max(20, self._out.width - LABEL_WIDTH))
        label = styled(f"{entry.label:{LABEL_WIDTH}}", "dim")
        blank = styled(" " * LABEL_WIDTH, "")
        return [joined(blank if n else label, line) for n, line in enumerate(found)]

    def _show(self, lines: list[Text]) -> None:
        from rich.console import Group
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=self._out, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(Group(*lines), refresh=True)

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


def _entries(draft: Draft) -> list[Entry]:
    found = [
        Entry("result", styled(f"{result.tool_name} → {_value(result.content)}", ""))
        for result in draft.results
    ]
    found += [Entry("running", styled(call.tool_name, "dim")) for call in draft.running]
    for part in draft.parts:
        match part.part_kind:
            case "text":
                found.append(Entry("assistant", styled(part.content, "")))
            case "thinking":
                found.append(Entry("thinking", styled(part.content, "dim italic")))
            case "tool-call":
                call = f"{part.tool_name} {_value('' if part.args is None else part.args)}"
                found.append(Entry("call", styled(call, "")))
            case kind:
                found.append(Entry(kind, styled("", "")))
    return found


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    with suppress(TypeError):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text, VALUE_CHARS)
