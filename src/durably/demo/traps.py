"""Traps: named moments in a worker at which it waits to be killed, so that no timing is guessed.

Owns the handshake by files between a worker and the demo; killing is the demo's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ANYBODY = "*"


class Sprung(NamedTuple):
    """A trap that a worker sits in."""

    name: str
    ticket: str
    pid: int


class Traps:
    """A folder with a file for each trap; renaming it is what springs the trap, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arm(self, name: str, ticket: str = ANYBODY) -> None:
        """Lay a trap for the worker that reaches this moment with this ticket."""
        self.folder.mkdir(exist_ok=True)
        self._armed(name, ticket).touch()

    def step_in(self, name: str, ticket: str) -> None:
        """In a worker: if the trap is armed, wait here to be killed; blocks the thread."""
        for wanted in (ticket, ANYBODY):
            with suppress(FileNotFoundError):
                sprung = self.folder / f"{name}.{ticket}.{os.getpid()}.sprung"
                self._armed(name, wanted).rename(sprung)
                _wait_to_be_killed()
                return

    def disarm(self) -> None:
        """Take away those that nobody has stepped into."""
        for path in self.folder.glob("*.armed"):
            path.unlink(missing_ok=True)

    def sprung(self) -> list[Sprung]:
        """The traps in which a worker sits, or sat."""
        found: list[Sprung] = []
        for path in sorted(self.folder.glob("*.sprung")):
            name, ticket, pid, _ = path.name.split(".")
            found.append(Sprung(name, ticket, int(pid)))
        return found

    def sat_in(self, pid: int, repeatable: Collection[str]) -> Sprung:
        """The trap in which a dead worker sat. Of two, one is laid again, to have its own kill.

        Args:
            repeatable: the traps by which a ticket comes once more.
        """
        found = [trap for trap in self.sprung() if trap.pid == pid]
        first, *others = sorted(found, key=lambda trap: trap.name in repeatable)
        for trap in others:
            if trap.name in repeatable:
                self.arm(trap.name, trap.ticket)
        return first

    def _armed(self, name: str, ticket: str) -> Path:
        return self.folder / f"{name}.{ticket}.armed"


def _wait_to_be_killed() -> None:
    # If whoever should kill this process has gone, life goes on.
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.05)
