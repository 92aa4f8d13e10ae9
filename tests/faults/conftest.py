"""What the tests of faults share: a site of a test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("crash.processes", "faults.site")

from crash.processes import Processes  # noqa: E402
from faults.site import Site  # noqa: E402
from support.postgres_server import PostgresServer  # noqa: E402


@pytest.fixture
def processes() -> Iterator[Processes]:
    started = Processes()
    yield started
    started.close()


@pytest.fixture
def site(own_postgres: PostgresServer, tmp_path: Path, processes: Processes) -> Iterator[Site]:
    site = Site(own_postgres, tmp_path / "site", processes)
    yield site
    site.close()
