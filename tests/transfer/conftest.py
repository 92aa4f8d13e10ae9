"""What the tests of moving a ledger share: one that is worth it, made once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from durably import boundaries
from durably.ledger.transfer import move
from support.moving import Contents, contents_of, lived
from support.transfer_process import RUNS_IN_BATCH


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lived") / "agents.db"
    asyncio.run(lived(path))
    return path


@pytest.fixture(scope="session")
def before(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """What the ledger holds."""
    copy = shutil.copy(made, tmp_path_factory.mktemp("read"))
    return asyncio.run(contents_of(f"sqlite:///{copy}"))


@pytest.fixture
def agents(made: Path, tmp_path: Path) -> Path:
    """A ledger with a past, in a file of the test's own."""
    return Path(shutil.copy(made, tmp_path / "agents.db"))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several batches also for few runs; and nobody observes boundaries afterwards."""
    monkeypatch.setattr(move, "FIRST_BATCH", RUNS_IN_BATCH)
    monkeypatch.setattr(move, "MOST_IN_BATCH", RUNS_IN_BATCH)
    yield
    boundaries.observe(None)
