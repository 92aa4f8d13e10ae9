"""Where the runs are whose cost is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.execution import soon
from support.databases import sql


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> str:
    """An empty ledger, and a table of the application's own."""
    if database == "sqlite":
        url = f"sqlite:///{tmp_path}/ledger.db"
    else:
        url = request.getfixturevalue("migrated_url")
    sql(url, "CREATE TABLE books (n INTEGER)")
    return url


@pytest.fixture(autouse=True)
def model_answers_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, the next response comes before a result is written by itself."""
    monkeypatch.setattr(soon, "SOON_SECONDS", 3600.0)
