"""Ledgers for one test: a file, or a schema of a PostgreSQL database; and working on one.

Owns that nothing here needs an event loop, so that any plugin for async tests will do.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from durably.app import Durably
from durably.errors import ConfigError
from durably.ledger.connect import database_for
from durably.ledger.database import Clock


def fresh_url(server: str | None, folder: Path) -> str:
    """The URL of a ledger that is not there yet.

    Args:
        server: ``postgresql://…``, for a schema of its own there; None: a file.
        folder: where the file would be.

    Raises:
        ConfigError: it is another kind of URL, or names a schema.
    """
    if not server or server == "sqlite":
        return f"sqlite:///{folder / 'ledger.db'}"
    place, _, query = server.partition("?")
    if not place.startswith(("postgresql://", "postgres://", "postgresql+psycopg://")):
        raise ConfigError(
            f"Tests run on SQLite, or on postgresql://user@host/database; not on {place!r}."
        )
    others = [part for part in query.split("&") if part]
    if any(part.startswith("schema=") for part in others):
        raise ConfigError("Each test has a schema of its own: take ?schema= out of the URL.")
    schema = f"durably_test_{secrets.token_hex(6)}"
    return f"{place}?{'&'.join([*others, f'schema={schema}'])}"


def delete(url: str) -> bool:
    """Delete the schema of a test; False for a file, which is pytest's to keep or delete."""
    if url.startswith("sqlite"):
        return False
    from durably.ledger.postgres.schema import drop
    from durably.ledger.postgres.url import PostgresUrl

    drop(PostgresUrl.parse(url))
    return True


def shown(url: str) -> str:
    """The URL as it may be printed: without its password."""
    return database_for(url).url


@contextmanager
def opened(app: Durably) -> Generator[Durably]:
    """Make the app's ledger, and let go of it after the block; for code without an event loop."""
    without_loop(app.migrate)
    try:
        yield app
    finally:
        without_loop(app.close)


@contextmanager
def redirect(app: Durably, url: str, *, clock: Clock | None = None) -> Generator[Durably]:
    """Within the block, an application works on another ledger, which is made if need be.

    For the application's own ``app``, with all that is registered: ``with redirect(app, url):``.

    Args:
        clock: what that ledger takes for the time; its own by default.
    """
    with app.using(database_for(url, clock), url), opened(app):
        yield app


def without_loop[T](work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do async work from anywhere, also where a loop is running: in a loop and thread of its own.

    Only for what is bound to no loop, as ledgers are.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(asyncio.run(work()))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="durably-testing")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
