"""Ledgers for the runs of a crash test: a new one for each, away from the application's own.

Owns SQLite's, files in a temporary folder; PostgreSQL's are in `postgres`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from durably.app import Durably
from durably.errors import ConfigError

type Setup = Callable[[str], Any]
"""Makes the application's own tables in a ledger's database; takes its URL, sync or async."""


class Grounds(Protocol):
    """Where ledgers are made.

    Attributes:
        dialect: ``sqlite`` or ``postgres``.
    """

    dialect: str

    def ledger(self, folder: Path, number: int) -> AbstractContextManager[str]:
        """A new ledger's URL, which is gone when the block ends.

        Args:
            folder: of the run that has it.
            number: another one for each ledger.
        """
        ...


def make_ledger(url: str, setup: Setup | None) -> None:
    """Make a ledger's tables, and then the application's.

    Raises:
        ConfigError: what makes the application's raised something.
        LedgerError: the database does not let it.
    """
    asyncio.run(_make(url, setup))


async def _make(url: str, setup: Setup | None) -> None:
    app = Durably(url)
    await app.migrate()
    await app.close()
    if setup is None:
        return
    try:
        made = setup(url)
        if asyncio.iscoroutine(made):
            await made
    except Exception as error:
        raise ConfigError(f"--setup raised {type(error).__name__}: {error}") from error


class SqliteGrounds:
    """A file for each run, copied from the first."""

    dialect = "sqlite"

    def __init__(self, folder: Path, setup: Setup | None) -> None:
        self._pattern = folder / "pattern.db"
        make_ledger(f"sqlite:///{self._pattern}", setup)

    def ledger(self, folder: Path, number: int) -> AbstractContextManager[str]:
        return _Copy(self._pattern, folder / "ledger.db")


class _Copy(AbstractContextManager[str]):
    """A file, and what SQLite puts beside it."""

    def __init__(self, pattern: Path, path: Path) -> None:
        self._pattern = pattern
        self._path = path

    def __enter__(self) -> str:
        shutil.copy(self._pattern, self._path)
        return f"sqlite:///{self._path}"

    def __exit__(self, *_: object) -> None:
        for file in self._path.parent.glob(f"{self._path.name}*"):
            file.unlink()
