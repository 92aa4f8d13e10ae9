"""Where the demo's data lies: a folder for the outside world, traps and logs; and a database.

Owns the paths; what is written there is said by the modules that write it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durably.demo.database import Database


@dataclass(frozen=True)
class Site:
    """The demo's folder, and the database that the shop and the ledger share.

    Attributes:
        postgres_url: where the database is; None: a SQLite file in the folder.
    """

    folder: Path
    postgres_url: str | None = None

    @cached_property
    def database(self) -> Database:
        from durably.demo.database import database_of

        return database_of(self.folder, self.postgres_url)

    @property
    def used(self) -> bool:
        """True if a demo was here before."""
        return (self.folder / "support.db").exists() or self.bill.exists()

    @property
    def payments(self) -> Path:
        """The payment provider's own record."""
        return self.folder / "payments.jsonl"

    @property
    def outbox(self) -> Path:
        """The mail that was sent."""
        return self.folder / "outbox.jsonl"

    @property
    def bill(self) -> Path:
        """What the model's provider would put on the bill: one line for each request."""
        return self.folder / "model-bill.jsonl"

    @property
    def kills(self) -> Path:
        """The workers that were killed."""
        return self.folder / "kills.jsonl"

    @property
    def approvals(self) -> Path:
        """The shop's own record of what was decided about refunds above the limit."""
        return self.folder / "approvals.jsonl"

    @property
    def traps(self) -> Path:
        """Where workers wait to be killed."""
        return self.folder / "traps"

    @property
    def logs(self) -> Path:
        """What the workers said, a file each."""
        return self.folder / "logs"

    def command(self, words: str) -> str:
        """A command of durably on this data, as it is typed into a shell."""
        return f"{self.durably} {words} --url {shlex.quote(self.database.shown)}"

    @property
    def durably(self) -> str:
        """How the command line is called here."""
        here = Path(sys.executable).with_name("durably")
        return "durably" if shutil.which("durably") else os.path.relpath(here)


def data_text(name: str) -> str:
    """A file that ships with the demo."""
    return files("durably.demo").joinpath("data", name).read_text("utf-8")
