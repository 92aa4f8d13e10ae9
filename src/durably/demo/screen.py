"""What the demo shows while it runs: a live table on a terminal, plain lines elsewhere.

Owns the drawing; what there is to say is the story's.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from durably.demo.checks import Check
from durably.demo.tickets import Ticket

STATE_STYLES = {
    "executing": "cyan",
    "completed": "green",
    "suspended": "yellow",
    "discarded": "red",
    "retryable": "red",
}


@dataclass
class Row:
    """One ticket on the screen."""

    ticket: Ticket
    state: str = "available"
    attempt: int = 0
    worker: str = ""
    last: str = ""


class Screen:
    """Lines as things happen and, on a terminal, a table below them that changes."""

    def __init__(self, tickets: Sequence[Ticket], console: Console | None = None) -> None:
        self.rows = {ticket.id: Row(ticket) for ticket in tickets}
        self.console = console or Console(highlight=False)
        self._live: Live | None = None
        self._held: list[Text] | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Screen:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        if self.console.is_terminal:
            # A new one each time: one that was stopped draws over what was printed since.
            self._live = Live(
                get_renderable=self._table,
                console=self.console,
                refresh_per_second=8,
                transient=True,
            )
            self._live.start()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @contextmanager
    def held(self) -> Generator[None]:
        """Nothing moves until the block ends, so that somebody can be asked; then all is said."""
        self._stop()
        self._held = held = list[Text]()
        try:
            yield
        finally:
            self._held = None
            for line in held:
                self.console.print(line, soft_wrap=True)
            self._start()

    def say(self, text: str, style: str = "") -> None:
        """One line, with the seconds since the start."""
        seconds = f"{time.monotonic() - self._began:5.1f} s  "
        line = Text.assemble((seconds, "dim"), (text, style))
        if self._held is None:
            self.console.print(line, soft_wrap=True)
        else:
            self._held.append(line)

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("ticket", "subject", "state", "attempt", "worker", "last"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for row in self.rows.values():
            state = Text(row.state, STATE_STYLES.get(row.state, "dim"))
            attempt = Text(str(row.attempt or ""), "bold yellow" if row.attempt > 1 else "")
            ticket = row.ticket
            table.add_row(ticket.id, ticket.subject, state, attempt, row.worker, row.last)
        return table


def draw_verdict(checks: Sequence[Check], console: Console) -> None:
    """The final table: what was to be, and what the data says."""
    table = Table(box=box.SIMPLE_HEAD, title="Read back from the data", title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("expected", justify="right")
    table.add_column("found", justify="right")
    table.add_column("read from", style="dim")
    table.add_column("")
    for check in checks:
        mark = Text("ok", "green") if check.ok else Text("WRONG", "bold red")
        table.add_row(check.what, check.expected, check.found, check.source, mark)
    console.print(table)
