"""Handles that wait for their runs share one look, and each hears what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent

from durably import Durably, RunCancelled, RunNotFound, RunSuspended, effects
from durably.ledger import reads
from durably.lookout import Lookout
from durably.testing import ScriptedModel, call
from support.databases import sql
from support.ledgers import PATIENCE_SECONDS, until

MANY = 300


@pytest.fixture
async def app(tmp_path: Path) -> AsyncGenerator[Durably]:
    agent = Agent(ScriptedModel("ok"), name="clerk")
    asker = Agent(ScriptedModel(call("pay"), "paid"), name="asker")

    @asker.tool_plain(metadata=effects.once(approve=True))
    def pay() -> str:
        return "paid"

    async with Durably(f"sqlite:///{tmp_path}/ledger.db", agents=[agent, asker]) as app:
        yield app


async def waiting(app: Durably, count: int) -> None:
    lookout: Any = Lookout.over(app.ledger)
    await until(lambda: len(lookout._waiters) == count, "all of them wait")


async def test_handles_that_wait_look_together(
    app: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = app.ledger.read

    async def counted(operation: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(operation.__name__)
        return await read(operation, *args, **kwargs)

    monkeypatch.setattr(app.ledger, "read", counted)
    runs = await app.enqueue_many("clerk", ["hi"] * MANY)
    results = [asyncio.create_task(run.result(timeout=PATIENCE_SECONDS)) for run in runs]
    await waiting(app, MANY)
    async with app.worker({"agents": 20}):
        assert await asyncio.gather(*results) == ["ok"] * MANY
    # Each handle once its run is over; all else is asked for together.
    assert asked.count(reads.get_run.__name__) == MANY


async def test_each_waiter_hears_only_of_its_own_run(app: Durably) -> None:
    first, second = await app.enqueue_many("clerk", ["a", "b"])
    results = [asyncio.create_task(run.result(timeout=PATIENCE_SECONDS)) for run in (first, second)]
    await waiting(app, 2)
    await first.cancel()
    with pytest.raises(RunCancelled):
        await results[0]
    assert not results[1].done()
    await app.drain()
    assert await results[1] == "ok"


async def test_waiter_who_minds_hears_that_its_run_is_suspended(app: Durably) -> None:
    run = await app.enqueue("asker", "hi")
    other = await app.get(run.key)
    patient = asyncio.create_task(run.result(timeout=PATIENCE_SECONDS))
    minding = asyncio.create_task(other.result(timeout=PATIENCE_SECONDS, wait_suspended=False))
    await waiting(app, 1)
    await app.drain()
    with pytest.raises(RunSuspended):
        await minding
    assert not patient.done()
    (item,) = await app.inbox()
    assert item.effect is not None
    await run.approve(item.effect.call_id)
    await app.drain()
    assert await patient == "paid"


async def test_waiter_whose_run_is_gone_hears_it(app: Durably) -> None:
    run = await app.enqueue("clerk", "hi")
    result = asyncio.create_task(run.result(timeout=PATIENCE_SECONDS))
    await waiting(app, 1)
    sql(app.settings.url, "DELETE FROM durably_runs")
    with pytest.raises(RunNotFound):
        await result


async def test_nobody_looks_once_nobody_waits(app: Durably) -> None:
    run = await app.enqueue("clerk", "hi")
    with pytest.raises(TimeoutError):
        await run.result(timeout=0.1)
    await waiting(app, 0)
    lookout: Any = Lookout.over(app.ledger)
    await until(lookout._looking.done, "it stops looking")
    result = asyncio.create_task(run.result(timeout=PATIENCE_SECONDS))
    await app.drain()
    assert await result == "ok"
