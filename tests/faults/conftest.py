"""What the tests of faults share: a site of a test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("crash.processes", "faults.site")

from crash.processes import Processes  # noqa: E402
from faults.site import EVERYTHING, Site  # noqa: E402
from support.postgres_server import PostgresServer  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "longer: only in `make faults`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `make faults`, a sample that takes a minute."""
    longer = [item for item in items if item.get_closest_marker("longer")]
    if longer and not EVERYTHING:
        config.hook.pytest_deselected(items=longer)
        items[:] = [item for item in items if item not in longer]


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
