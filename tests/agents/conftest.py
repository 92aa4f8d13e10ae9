"""What the agent tests share: an app on each database, and a log of what tools did."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from durably import Durably
from support.databases import empty
from support.postgres_run import Postgres


@pytest.fixture(scope="session")
def one_database(postgres: Postgres) -> Iterator[str]:
    """A database with durably's tables, for one test after the other: making one takes longer than
    most of these tests."""
    with postgres.database(template=postgres.migrated) as url:
        yield url


@pytest.fixture
def empty_url(one_database: str) -> str:
    """A ledger in PostgreSQL, with nothing in it of whoever had the database before."""
    empty(one_database)
    return one_database


@pytest.fixture(params=["sqlite", "postgres"])
def app_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger, once on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("empty_url")


@pytest.fixture
async def app(app_url: str) -> AsyncIterator[Durably]:
    async with Durably(app_url) as app:
        yield app


@pytest.fixture
def log() -> list[str]:
    """What tools really did."""
    return []
