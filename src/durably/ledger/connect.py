"""URLs to databases: the one place that knows which driver a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from durably.errors import ConfigError
from durably.ledger.database import Clock, Database


def database_for(url: str, clock: Clock | None = None) -> Database:
    """The database that a URL names; not yet opened.

    ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or a plain path, which is taken as it is;
    ``postgresql://user@host/database``, also with ``?schema=`` (see `PostgresUrl`).

    Args:
        clock: what it takes for the time; its own by default. For tests.

    Raises:
        ConfigError: the URL names nothing that durably knows, or no file.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _sqlite(url, clock)
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgres(url, clock)
    if scheme != "sqlite":
        raise ConfigError(
            f"{scheme}:// is no database that this version knows; use sqlite:///path/to/file.db "
            "or postgresql://user@host/database."
        )
    return _sqlite(unquote(rest.removeprefix("/").partition("?")[0]), clock)


def _sqlite(path: str, clock: Clock | None) -> Database:
    if path in ("", ":memory:"):
        raise ConfigError(
            "A ledger in memory would not survive this process; name a file: sqlite:///agents.db."
        )
    from durably.ledger.sqlite.database import SqliteDatabase

    return SqliteDatabase(Path(path), clock=clock)


def _postgres(url: str, clock: Clock | None) -> Database:
    try:
        from durably.ledger.postgres.database import PostgresDatabase
    except ImportError as error:
        raise ConfigError(
            f"postgresql:// needs {error.name}: pip install 'durably[postgres]'."
        ) from error
    return PostgresDatabase(url, clock=clock)
