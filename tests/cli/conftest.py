"""What the command line's tests share: a desk, and one with a decision to make."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.desk import APPS, Desk


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that is about one database asks for it; any other runs on both."""
    asked = set(metafunc.fixturenames)
    if "ledger_url" in asked:
        named = [name for name in ("sqlite", "postgres") if f"on_{name}" in asked]
        databases = named or ["sqlite", "postgres"]
        metafunc.parametrize("ledger_url", databases, indirect=True)


@pytest.fixture
def on_sqlite() -> None:
    """For tests of what only SQLite does, or of what no database has a part in."""


@pytest.fixture
def on_postgres() -> None:
    """For tests of what only PostgreSQL does."""


@pytest.fixture
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the ledger is: on SQLite not made yet, as nothing has to be done for it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("wiped_url")


@pytest.fixture
def desk(
    ledger_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Desk]:
    for name in list(os.environ):
        if name.startswith("DURABLY_"):
            monkeypatch.delenv(name)
    desk = Desk(tmp_path, capsys, ledger_url)
    monkeypatch.setenv("DESK", str(tmp_path))
    monkeypatch.setenv("DURABLY_URL", desk.url)
    monkeypatch.chdir(APPS)
    monkeypatch.syspath_prepend(str(APPS))
    yield desk
    desk.close()


@pytest.fixture
def in_doubt(desk: Desk) -> Desk:
    """A desk with the run ``k``, whose charge broke after it acted."""
    (desk.folder / "broken").touch()
    desk.enqueue("cashier", "k")
    desk.drain()
    (desk.folder / "broken").unlink()
    assert desk.notes() == ["model charge", "charge 5"]
    return desk
