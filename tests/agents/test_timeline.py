"""A run's timeline tells what happened when, what each step cost, and what resuming saved."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_ai import Agent, ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from durably import Durably, Price, RunState, effects
from durably.agents.answers import answers_of
from durably.agents.pricing import Prices
from durably.lifecycle import AttemptOutcome
from durably.records import Answer, Attempt, RunRecord, Saved, StoredMessage
from durably.timeline import timeline_of

PAUSE = 0.05
PRICES = {"shop-model": Price(input=1_000_000, output=2_000_000)}  # A dollar a token, and two.


def shop() -> Agent[None, str]:
    """Looks, is asked to approve a refund, makes it, and says so; slow enough to be measured."""

    async def model(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        await asyncio.sleep(PAUSE)
        said = sum(isinstance(m, ModelResponse) for m in messages)
        parts = [ToolCallPart("look", {}), ToolCallPart("refund", {})] if said == 0 else []
        usage = RequestUsage(input_tokens=10 + said, output_tokens=2)
        return ModelResponse(parts or [TextPart("done")], usage=usage, model_name="shop-model")

    agent = Agent(FunctionModel(model, model_name="shop-model"), name="shop")

    @agent.tool_plain(metadata=effects.READ)
    async def look() -> str:
        await asyncio.sleep(PAUSE)
        return "a parcel"

    @agent.tool_plain(metadata=effects.once(), requires_approval=True)
    async def refund() -> str:
        await asyncio.sleep(PAUSE)
        return "refunded"

    return agent


async def test_timeline_tells_what_happened_when_and_what_resuming_saved(app_url: str) -> None:
    async with Durably(app_url, agents=[shop()], prices=PRICES) as app:
        await app.enqueue("shop", "refund it", key="k")
        await app.drain()
        run = await app.get("k")
        waiting = await run.timeline()
        (wait,) = [w for w in waiting.waits if w.call_id]
        assert (wait.kind, wait.call_id, wait.ended_at) == ("approval", "1.1", None)
        assert waiting.ended_at is None and waiting.saved == Saved()

        await run.approve("1.1", by="ann")
        await app.drain()
        timeline = await run.timeline()
        first, second = timeline.steps
        assert timeline.ended_at == run.record.finished_at
        assert [a.outcome for a in timeline.attempts] == ["suspended", "completed"]
        assert [step.tools for step in timeline.steps] == [("look", "refund"), ()]
        assert [(step.attempt, step.reused) for step in timeline.steps] == [(1, True), (2, False)]
        assert [step.tokens for step in timeline.steps] == [12, 13]
        assert [step.cost_nanousd for step in timeline.steps] == [14 * 10**9, 15 * 10**9]
        assert sum(step.cost_nanousd or 0 for step in timeline.steps) == run.record.own_nanousd
        assert run.record.tokens == 25 and run.record.model == first.model == "shop-model"

        look, refund = first.calls
        for began, ended in (
            (look.started_at, look.ended_at),
            (refund.started_at, refund.ended_at),
        ):
            assert ended is not None and ended - began >= timedelta(seconds=PAUSE * 0.9)
        assert first.started_at >= timeline.attempts[0].started_at
        assert first.seconds >= PAUSE * 0.9
        assert first.answered_at <= look.started_at
        # The model was asked once the last result was there.
        assert second.started_at == refund.ended_at
        assert second.seconds >= PAUSE * 0.9

        (wait,) = [w for w in timeline.waits if w.call_id]
        assert (wait.kind, wait.by) == ("approval", "ann")
        assert wait.ended_at is not None and refund.ended_at is not None
        assert wait.started_at < wait.ended_at < refund.ended_at
        assert {w.kind for w in timeline.waits} <= {"queue", "approval"}, "and for nothing else"
        assert timeline.saved == Saved(responses=1, tokens=12, cost_nanousd=14 * 10**9, calls=1)
        assert await run.steps() == timeline.steps
        assert [a.action for a in await app.actions(run="k")] == ["approve"]


async def test_crash_and_waits_of_the_run_itself_are_told(app: Durably) -> None:
    """What is put together from records alone, whoever wrote them."""
    await app.enqueue("nobody", "hi", key="k")
    run = (await app.get("k")).record
    at = run.inserted_at

    def later(seconds: float) -> datetime:
        return at + timedelta(seconds=seconds)

    def attempt(number: int, began: float, ended: float, outcome: AttemptOutcome) -> Attempt:
        return Attempt(1, number, "w", later(began), later(ended), outcome, None, None, None)

    attempts = [
        attempt(1, 5, 9, AttemptOutcome.LOST),
        attempt(2, 10, 11, AttemptOutcome.SUSPENDED),
        attempt(3, 20, 21, AttemptOutcome.SUSPENDED),
    ]
    answers = [
        Answer(1, 1, later(8), "m", 7, 1, None, ()),
        Answer(3, 2, later(11), "m", 7, 1, 5, ()),
    ]
    waits = {"kind": "budget", "scope": "run"}
    told = replace(run, state=RunState.SUSPENDED, waiting_on=waits, waited_ms=2000)
    timeline = timeline_of(told, attempts, answers, [], [])
    assert [a.crashed for a in timeline.attempts] == [True, False, False]
    assert [(w.kind, w.started_at, w.ended_at) for w in timeline.waits] == [
        ("queue", later(3), later(5)),
        ("suspended", later(11), later(20)),
        ("budget", later(21), None),
    ]
    assert [s.started_at for s in timeline.steps] == [later(5), later(10)]
    assert timeline.saved == Saved(responses=2, tokens=16, cost_nanousd=5)


def test_long_run_takes_as_much_for_each_step() -> None:
    """Ten times the steps are ten times the looks at records, not a hundred."""
    looks = {size: _looks(size) for size in (50, 500)}
    assert 0 < looks[500] <= 11 * looks[50]


def _looks(size: int) -> int:
    counted = 0

    class Counted(Answer):
        def __getattribute__(self, name: str) -> Any:
            nonlocal counted
            counted += 1
            return super().__getattribute__(name)

    at = datetime(2026, 3, 1, tzinfo=UTC)
    answers = [Counted(2 * n + 1, 1, at, "m", 1, 1, None, ("t",)) for n in range(size)]
    run = RunRecord(  # Only its times matter.
        *(1, "k", "a", "q", RunState.COMPLETED, 0, 1, 0, 0, 5, [], {}, {}, None, None, None, None),
        *(None, at, at, at, at),
    )
    assert len(timeline_of(run, [], answers, [], []).steps) == size
    return counted


def test_answers_are_read_from_any_row() -> None:
    """Of another version, or damaged: what it says is told, and nothing breaks."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    bodies: list[Any] = [
        None,
        [],
        {"usage": 3, "parts": {"a": 1}, "model_name": 7},
        {
            "usage": {"input_tokens": "x", "output_tokens": 4, "new": 1},
            "parts": [1, {"part_kind": 2}],
        },
    ]
    texts = ["no json", *map(json.dumps, bodies)]
    rows = [StoredMessage(n, "response", 1, text, at) for n, text in enumerate(texts)]
    found = answers_of([*rows, StoredMessage(9, "request", 1, "{}", at)], Prices())
    assert [(a.seq, a.model, a.output_tokens) for a in found] == [
        *((n, "unknown", 0) for n in range(4)),
        (4, "unknown", 4),
    ]
    assert all(a.cost_nanousd is None and a.tools == () for a in found)
