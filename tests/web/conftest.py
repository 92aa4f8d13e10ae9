"""What the tests of the web share: runs in many states, and a server that shows them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from durably.web import TokenAccess, create_app, lifespan
from support.serving import serving
from support.web import OPERATOR, VIEWER, Shop, fill


@pytest.fixture
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """On SQLite, unless a test asks for PostgreSQL."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("wiped_url")


@pytest.fixture
def shop(ledger_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("DESK", str(tmp_path))
    monkeypatch.setenv("DURABLY_URL", ledger_url)
    asyncio.run(fill(tmp_path))
    from apps.desk import make

    app = make()

    @asynccontextmanager
    async def working(api: FastAPI) -> AsyncGenerator[None]:
        async with lifespan(app)(api), app.worker({"idle": 1}):
            yield

    api = create_app(app, access=TokenAccess(OPERATOR, VIEWER))
    api.router.lifespan_context = working
    with serving(api) as url:
        yield Shop(url, ledger_url, tmp_path)
