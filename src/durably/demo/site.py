"""Where the demo's data lies: one folder for the shop, the outside world, traps and logs.

Owns the paths; what is written there is said by the modules that write it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Site:
    """The demo's folder. The shop and the ledger share one database file."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "support.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.database}"

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
    def traps(self) -> Path:
        """Where workers wait to be killed."""
        return self.folder / "traps"

    @property
    def logs(self) -> Path:
        """What the workers said, a file each."""
        return self.folder / "logs"


def data_text(name: str) -> str:
    """A file that ships with the demo."""
    return files("durably.demo").joinpath("data", name).read_text("utf-8")
