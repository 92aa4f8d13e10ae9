"""What the command line's tests share: a desk, and one with a decision to make."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.desk import APPS, Desk


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    for name in list(os.environ):
        if name.startswith("DURABLY_"):
            monkeypatch.delenv(name)
    desk = Desk(tmp_path, capsys)
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
