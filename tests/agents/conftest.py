"""What the agent tests share: an app on a temporary ledger, and a log of what tools did."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durably import Durably


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Durably]:
    async with Durably(f"sqlite:///{tmp_path}/ledger.db") as app:
        yield app


@pytest.fixture
def log() -> list[str]:
    """What tools really did."""
    return []
