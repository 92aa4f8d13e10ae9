"""Printing: lines and tables for people, JSON for programs; what is ours and what is not.

Owns the consoles. Everything printed for people is built of `Text`, never of markup, so that no
value can style or forge the output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from durably.cli.text import clean, one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from durably.cli.conversation import Entry

LABEL_WIDTH = 12

STYLES = {
    "scheduled": "blue",
    "available": "blue",
    "executing": "cyan",
    "retryable": "yellow",
    "suspended": "bold magenta",
    "completed": "green",
    "discarded": "red",
    "cancelled": "dim",
    "started": "cyan",
    "done": "green",
    "failed": "red",
    "in_doubt": "bold red",
    "awaiting": "bold magenta",
    "denied": "yellow",
    "lost": "red",
    "handed_back": "blue",
    "ok": "green",
    "warning": "yellow",
    "problem": "red",
}
"""The colour of every state and status; a name that is not here has none."""

PIPE_WIDTH = 10_000
"""How wide tables may be where nobody's window ends; nothing is cut or folded in a pipe."""


def console(*, stderr: bool = False) -> Console:
    """Where to print for people."""
    from rich.console import Console

    file = sys.stderr if stderr else sys.stdout
    width = None if file.isatty() else PIPE_WIDTH
    return Console(file=file, width=width, highlight=False, markup=False, emoji=False)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print JSON in ASCII: nothing in it can disturb a terminal either."""
    print(json.dumps(value, indent=indent), flush=True)


def say(message: str) -> None:
    """Print one sentence of a command's own for people."""
    print(clean(message))


def styled(text: object, style: str | None = None) -> Text:
    """A text in the colour of a state, or of the style given."""
    from rich.text import Text

    shown = clean(str(text))
    return Text(shown, style=STYLES.get(shown, "") if style is None else style)


def joined(*texts: Text) -> Text:
    """One text of several, each in its own style."""
    from rich.text import Text

    return Text.assemble(*texts)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under columns; values are cleaned, states coloured."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(styled(one_line(str(value))) for value in row))
    print_grid(table)


def print_grid(table: Table) -> None:
    """Print a table; into a pipe without the blanks that fill its last column."""
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def print_entry(out: Console, entry: Entry) -> None:
    """Print an entry of a conversation, its lines hanging under its label."""
    if out.is_terminal:
        lines = entry.body.wrap(out, max(20, out.width - LABEL_WIDTH))
    else:
        lines = entry.body.split("\n", allow_blank=True)
    for number, line in enumerate(lines):
        label = styled(f"{entry.label if number == 0 else '':{LABEL_WIDTH}}", "dim")
        out.print(joined(label, line), soft_wrap=True)


def moment_text(moment: datetime | None) -> str:
    """A time as people read it: theirs, to the second; empty for none."""
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
