"""What the agent tests share: an app on each database, and a log of what tools did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durably import Durably


@pytest.fixture(params=["sqlite", "postgres"])
def app_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger, once on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("migrated_url")


@pytest.fixture
async def app(app_url: str) -> AsyncIterator[Durably]:
    async with Durably(app_url) as app:
        yield app


@pytest.fixture
def log() -> list[str]:
    """What tools really did."""
    return []
