"""Enqueuing: one run per key, and nothing half done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import ConfigError, Durably, KeyConflict, RunState
from support.ledgers import PATIENCE_SECONDS, Backend, Clock


def say_ok(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
    return ModelResponse(parts=[TextPart("ok")])


agent = Agent(FunctionModel(say_ok), name="clerk")
other_agent = Agent(FunctionModel(say_ok), name="cook")


@pytest.fixture
async def app(backend: Backend) -> AsyncGenerator[Durably]:
    async with Durably(backend.url, agents=[agent, other_agent]) as app:
        yield app


async def keys(app: Durably) -> set[str]:
    return {run.key for run in await app.runs(limit=1000)}


# --- keys


async def test_same_key_and_content_give_the_same_run(app: Durably) -> None:
    first = await app.enqueue(agent, "hello", key="k", args={"a": 1, "b": [2]})
    again = await app.enqueue("clerk", "hello", key="k", args={"b": [2], "a": 1})
    assert again.record == first.record
    assert await keys(app) == {"k"}


async def test_finished_run_is_returned_with_its_output(app: Durably) -> None:
    await app.enqueue(agent, "hello", key="k")
    await app.drain()
    again = await app.enqueue(agent, "hello", key="k")
    assert await again.result(timeout=PATIENCE_SECONDS) == "ok"
    assert await app.drain() == 0


@pytest.mark.parametrize(
    ("who", "prompt", "args", "what"),
    [
        (other_agent, "hello", {}, r"agent \('clerk'\)"),
        (agent, "goodbye", {}, "prompt"),
        (agent, "hello", {"a": 1}, "args"),
        (other_agent, "goodbye", {"a": 1}, r"agent \('clerk'\) and prompt and args"),
    ],
    ids=["agent", "prompt", "args", "all"],
)
async def test_key_of_another_run_is_refused(
    app: Durably, who: Agent, prompt: str, args: dict[str, Any], what: str
) -> None:
    await app.enqueue(agent, "hello", key="k")
    with pytest.raises(KeyConflict, match=f"'k' belongs to a run with another {what};"):
        await app.enqueue(who, prompt, key="k", args=args)
    assert await keys(app) == {"k"}


async def test_many_who_enqueue_one_key_at_once_get_one_run(app: Durably) -> None:
    runs = await asyncio.gather(*(app.enqueue(agent, "hello", key="k") for _ in range(50)))
    assert len({run.record.id for run in runs}) == 1


async def test_run_without_a_key_is_always_a_new_one(app: Durably) -> None:
    first, second = [await app.enqueue(agent, "hello") for _ in range(2)]
    assert first.key != second.key


async def test_unique_for_returns_the_twin_of_the_last_seconds(
    backend: Backend, clock: Clock
) -> None:
    app = Durably(backend.url, agents=[agent])
    app.ledger = backend.database
    first = await app.enqueue(agent, "hello", unique_for=60)
    clock.advance(59)
    twin = await app.enqueue(agent, "hello", unique_for=60)
    different = await app.enqueue(agent, "hello", args={"a": 1}, unique_for=60)
    clock.advance(2)
    later = await app.enqueue(agent, "hello", unique_for=60)
    assert twin.key == first.key
    assert len({first.key, different.key, later.key}) == 3
    await app.close()


# --- what cannot work


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scheduled_at": datetime(2030, 1, 1)}, "scheduled_at has no time zone"),
        ({"args": {"a": object()}}, "args= must be a JSON object"),
        ({"args": {"a": float("nan")}}, "args= must be a JSON object"),
        ({"args": [1]}, "args= must be a JSON object"),
        ({"meta": {"a": {1}}}, "meta= must be a JSON object"),
        ({"key": " "}, "key is empty"),
        ({"key": "k", "unique_for": 1.0}, "not both"),
        ({"priority": 10}, "priority=10"),
        ({"priority": -1}, "priority=-1"),
        ({"max_attempts": 0}, "max_attempts=0"),
        ({"delay": float("nan")}, "delay=nan"),
        ({"delay": float("inf")}, "delay=inf"),
        ({"delay": 1e15}, "delay=1000000000000000"),
        ({"delay": -1.0}, "delay=-1"),
        ({"unique_for": float("nan")}, "unique_for=nan"),
        ({"unique_for": -1.0}, "unique_for=-1"),
        ({"key": "\ud800"}, "key=.* holds what no database"),
        ({"key": "a\0b"}, "key=.* holds what no database"),
        ({"queue": "a\0b"}, "queue=.* holds what no database"),
        ({"tags": ["a", "\ud800"]}, "tag=.* holds what no database"),
    ],
)
async def test_option_that_cannot_work_is_refused_and_stores_nothing(
    app: Durably, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        await app.enqueue(agent, "hello", **options)
    assert await keys(app) == set()


async def test_scheduled_run_waits_for_its_time(app: Durably) -> None:
    due = datetime.now(UTC) + timedelta(days=1)
    run = await app.enqueue(agent, "hello", scheduled_at=due.astimezone())
    assert (run.state, run.record.scheduled_at) == (RunState.SCHEDULED, due)
    delayed = await app.enqueue(agent, "hello", delay=3600)
    assert delayed.state is RunState.SCHEDULED
    assert await app.drain() == 0


async def test_prompt_of_10_mb_goes_through_enqueue_run_and_history(app: Durably) -> None:
    prompt = "0123456789" * 1_000_000
    run = await app.enqueue(agent, prompt, key="k")
    assert await app.drain() == 1
    assert await run.result(timeout=PATIENCE_SECONDS) == "ok"
    assert await run.prompt() == prompt
    first = (await run.history())[0]
    assert isinstance(first, ModelRequest)
    assert first.parts[0].content == prompt
    again = await app.enqueue(agent, prompt, key="k")
    assert again.record.id == run.record.id
