"""What the tests of Oban share: an app on Postgres, a clerk, and a look at the jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from durably import Durably
from support.clerk import Clerk, Jobs, make_app


@pytest.fixture
def clerk() -> Clerk:
    clerk = Clerk()
    clerk.gate.set()
    return clerk


@pytest.fixture
async def app(wiped_url: str, clerk: Clerk) -> AsyncIterator[Durably]:
    async with make_app(wiped_url, clerk) as app:
        yield app


@pytest.fixture
def jobs(wiped_url: str) -> Jobs:
    return Jobs(wiped_url)
