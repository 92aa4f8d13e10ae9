"""The tests of the test kit use it: its fixtures, on each database in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from durably.testing import ledgers
from support.postgres_run import Postgres

pytest_plugins = ["pytester"]


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest) -> str | None:
    """What would be given as ``--durably-url``."""
    if request.param == "sqlite":
        return None
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.url


@pytest.fixture
def durably_url(server: str | None, tmp_path: Path) -> Iterator[str]:
    """As the plugin has it, once on each database."""
    url = ledgers.fresh_url(server, tmp_path)
    yield url
    ledgers.delete(url)
