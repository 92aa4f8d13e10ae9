"""The ledger suite's fixtures: it runs once for each database that a ledger can live in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from support.ledgers import Backend, Clock, Ledger, PostgresBackend, SqliteBackend


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Backend:
    if request.param == "sqlite":
        return SqliteBackend(tmp_path / "ledger.db", clock)
    return PostgresBackend(request.getfixturevalue("migrated_url"), clock)


@pytest.fixture
async def ledger(backend: Backend, clock: Clock) -> AsyncGenerator[Ledger]:
    await backend.database.open()
    yield Ledger(backend, clock)
    await backend.database.close()


@pytest.fixture
def sqlite(ledger: Ledger) -> SqliteBackend:
    """The backend of an open ledger, for what only SQLite promises."""
    assert isinstance(ledger.backend, SqliteBackend), "ask for it on SQLite only"
    return ledger.backend
