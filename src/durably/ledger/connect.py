"""URLs to databases: the one place that knows which driver a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from durably.errors import ConfigError
from durably.ledger.database import Database


def database_for(url: str) -> Database:
    """The database that a URL names; not yet opened.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or a plain path, which is taken as it is.

    Raises:
        ConfigError: the URL names nothing that durably knows, or no file.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _sqlite(url)
    if scheme != "sqlite":
        raise ConfigError(
            f"{scheme}:// is no database that this version knows; use sqlite:///path/to/file.db."
        )
    return _sqlite(unquote(rest.removeprefix("/").partition("?")[0]))


def _sqlite(path: str) -> Database:
    if path in ("", ":memory:"):
        raise ConfigError(
            "A ledger in memory would not survive this process; name a file: sqlite:///agents.db."
        )
    from durably.ledger.sqlite.database import SqliteDatabase

    return SqliteDatabase(Path(path))
