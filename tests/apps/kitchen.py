"""The demo's support desk as an application to crash: its shop is made in every new ledger too."""

from pathlib import Path

from durably import Durably
from durably.demo.database import SqliteFile


def make() -> Durably:
    """The demo's own application, in the folder that its environment names."""
    from durably.demo.app import app

    return app


def setup(url: str) -> None:
    """The shop's tables, which its bookings are written to."""
    SqliteFile(Path(url.removeprefix("sqlite:///"))).make_shop()
