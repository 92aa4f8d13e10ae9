"""The ledger suite's fixtures: it runs once for each database that a ledger can live in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from durably.ledger.postgres.database import PostgresDatabase
from support.ledgers import Backend, Clock, Ledger, PostgresBackend, SqliteBackend


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for one database's own backend is about that one; any other runs on both."""
    asked = set(metafunc.fixturenames)
    if "backend" in asked and "way" not in asked:  # ways know their backend themselves
        databases = [name for name in ("sqlite", "pg") if name in asked] or ["sqlite", "pg"]
        metafunc.parametrize("backend", databases, indirect=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Backend:
    if request.param == "sqlite":
        return SqliteBackend(tmp_path / "ledger.db", clock)
    return PostgresBackend(request.getfixturevalue("wiped_url"), clock)


@pytest.fixture
async def ledger(backend: Backend, clock: Clock) -> AsyncGenerator[Ledger]:
    await backend.database.open()
    yield Ledger(backend, clock)
    await backend.database.close()


@pytest.fixture
def sqlite(ledger: Ledger) -> SqliteBackend:
    """The backend of an open ledger, for what only SQLite promises."""
    assert isinstance(ledger.backend, SqliteBackend)
    return ledger.backend


@pytest.fixture
def pg(ledger: Ledger) -> PostgresBackend:
    """The backend of an open ledger, for what only PostgreSQL promises."""
    assert isinstance(ledger.backend, PostgresBackend)
    return ledger.backend


@pytest.fixture
async def other(ledger: Ledger, pg: PostgresBackend) -> AsyncGenerator[PostgresDatabase]:
    """The same ledger as another process has it open."""
    other = PostgresDatabase(pg.url, clock=ledger.clock)
    await other.open()
    yield other
    await other.close()
