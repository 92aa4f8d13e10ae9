"""The ledger's tables as numbered migrations, for each database.

Owns where the files lie; running them is the driver's, what the tables mean the ledger's.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def migrations(dialect: str) -> list[tuple[int, str]]:
    """The numbered migration files of one database, in order: (version, SQL)."""
    found = [
        (int(entry.name.split("_")[0]), entry.read_text("utf-8"))
        for entry in _folder().joinpath(dialect).iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found)


def current_schema(dialect: str) -> str:
    """The whole schema as one script, as a fresh ledger gets it."""
    return _folder().joinpath(f"{dialect}.sql").read_text("utf-8")


def newest_version(dialect: str) -> int:
    """The version that this code writes."""
    return migrations(dialect)[-1][0]


def _folder() -> Traversable:
    return files("durably.ledger").joinpath("sql", "schema")
