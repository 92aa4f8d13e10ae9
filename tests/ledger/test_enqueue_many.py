"""Enqueuing many runs at once: as if one by one, but all of them or none."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from pydantic_ai import Agent, ImageUrl

from durably import Budget, ConfigError, Durably, KeyConflict, RunState
from durably.ledger import runs
from durably.records import RunRecord
from durably.testing import ScriptedModel
from support.ledgers import PATIENCE_SECONDS, Backend, PostgresBackend

agent = Agent(ScriptedModel("ok"), name="clerk")

ODD = ['"quoted"', "line\nbreak", "umläut 🦉", "\0 NUL", "[1, 2]", "1.0"]


@pytest.fixture
async def app(backend: Backend) -> AsyncGenerator[Durably]:
    async with Durably(backend.url, agents=[agent]) as app:
        yield app


async def test_many_runs_are_stored_as_one_by_one(app: Durably) -> None:
    options: dict[str, Any] = {
        "args": {"a": [1]},
        "queue": "other",
        "priority": 3,
        "max_attempts": 2,
        "delay": 60.0,
        "tags": ["t", "ü"],
        "meta": {"m": "\0"},
        "budget": Budget(tokens=5),
        "stream": True,
    }
    (many,) = await app.enqueue_many(agent, ["hi"], keys=["many"], **options)
    one = await app.enqueue(agent, "hi", key="one", **options)
    assert many.created
    apart = {"id", "key", "scheduled_at", "inserted_at"}
    names = [name for name in RunRecord.__slots__ if name not in apart]
    records = [{name: getattr(run.record, name) for name in names} for run in (many, one)]
    assert records[0] == records[1]
    assert await many.input() == await one.input()
    events = [[(e.kind, e.data) for e in await run.events()] for run in (many, one)]
    assert events[0] == events[1]


@pytest.mark.parametrize("prompts", [ODD, [["look", ImageUrl("https://a.example/b.png")]]])
async def test_each_prompt_is_stored_as_it_is(app: Durably, prompts: list[Any]) -> None:
    many = await app.enqueue_many(agent, prompts)
    assert [await run.prompt() for run in many] == prompts
    for run, prompt in zip(many, prompts, strict=True):
        again = await app.enqueue(agent, prompt, key=run.key)
        assert not again.created


async def test_many_runs_are_executed(app: Durably) -> None:
    count = runs.AT_ONCE + 1
    many = await app.enqueue_many(agent, ["hi"] * count, queue="aside")
    assert len({run.record.id for run in many}) == count
    few = await app.enqueue_many(agent, ["hi"] * 3)
    async with app.worker({"agents": 20}):
        for run in few:
            assert await run.result(timeout=PATIENCE_SECONDS) == "ok"


async def test_existing_key_gives_its_run(app: Durably) -> None:
    first = await app.enqueue(agent, "a", key="a")
    again, new, twice = await app.enqueue_many(agent, ["a", "b", "b"], keys=["a", "b", "b"])
    assert (again.record, again.created) == (first.record, False)
    assert new.created
    assert twice.record == new.record


@pytest.mark.parametrize("prompts", [["b", "other"], ["b", "a"]])
async def test_all_runs_are_stored_or_none(app: Durably, prompts: list[str]) -> None:
    await app.enqueue(agent, "taken", key="a")
    with pytest.raises(KeyConflict, match="'a'"):
        await app.enqueue_many(agent, prompts, keys=["b", "a"])
    assert {run.key for run in await app.runs()} == {"a"}


async def test_keys_are_one_for_each_prompt(app: Durably) -> None:
    with pytest.raises(ConfigError, match="2 prompts with 1 keys"):
        await app.enqueue_many(agent, ["a", "b"], keys=["a"])
    with pytest.raises(ConfigError, match="empty"):
        await app.enqueue_many(agent, ["a"], keys=[" "])
    with pytest.raises(KeyConflict, match="twice"):
        await app.enqueue_many(agent, ["a", "b"], keys=["k", "k"])
    assert await app.enqueue_many(agent, []) == []


async def test_many_runs_come_and_go_with_the_callers_transaction(
    app: Durably, backend: Backend
) -> None:
    await app.enqueue_many(agent, ["kept"], keys=["kept"])
    with backend.connect() as connection:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("BEGIN")
        made = await app.enqueue_many(agent, ["a", "b"], conn=connection)
        assert [run.state for run in made] == [RunState.AVAILABLE] * 2
        connection.rollback()
    assert {run.key for run in await app.runs()} == {"kept"}


async def test_many_runs_have_a_job_each(app: Durably, pg: PostgresBackend) -> None:
    await app.enqueue_many(agent, ["a", "b"], keys=["a", "b"])
    await app.enqueue_many(agent, ["c"], keys=["c"], delay=60.0)
    found = pg.select(
        "SELECT r.key, j.args ->> 'key', j.state FROM durably_runs r "
        "JOIN oban_jobs j ON j.id = r.job_id ORDER BY r.key"
    )
    assert found == [("a", "a", "available"), ("b", "b", "available"), ("c", "c", "scheduled")]
