"""What the crash tests share: processes, and grounds for worlds on both databases."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.register_assert_rewrite("crash.promises", "crash.processes", "crash.waiting_promises")

from crash.grounds import Grounds, PostgresGrounds, SqliteGrounds  # noqa: E402
from crash.processes import Processes  # noqa: E402
from support.postgres_run import Postgres  # noqa: E402


@pytest.fixture
def processes() -> Iterator[Processes]:
    started = Processes()
    yield started
    started.close()


@pytest.fixture(params=["sqlite", "postgres"])
def grounds(request: pytest.FixtureRequest, tmp_path: Path, processes: Processes) -> Grounds:
    """Where the worlds of a test are made, on each database in turn."""
    if request.param == "sqlite":
        return SqliteGrounds(tmp_path / "pattern", processes)
    return request.getfixturevalue("_postgres_grounds")


@pytest.fixture(scope="session")
def _postgres_grounds(postgres: Postgres) -> Iterator[PostgresGrounds]:
    with ExitStack() as databases:
        yield PostgresGrounds(postgres, databases)
