"""Hooks of an application: called by its workers for what waits, and in nobody's way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_ai import Agent

import durably
from durably import ConfigError, Durably, Run, RunState, RunSuspended, Waiting, effects
from durably.ledger import notices
from durably.records import FindingStatus
from support.databases import ON_SQLITE
from support.scripted import Script, call

PATIENCE_SECONDS = 120


def till(app: Durably, **approval: Any) -> Agent[None, str]:
    """An agent that pays back once somebody has approved it."""
    agent = Agent(Script([call("pay_back", amount=7)], "done").model, name="till")

    @agent.tool_plain(metadata=effects.once(approve=True, **approval))
    async def pay_back(amount: int) -> str:
        return f"paid {amount}"

    app.register(agent)
    return agent


async def reach(run: Run[Any], state: RunState) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await run.refresh()).state is not state:
            await asyncio.sleep(0.02)


async def test_worker_tells_what_waits_and_whoever_is_told_decides(app: Durably) -> None:
    till(app)
    told: asyncio.Queue[Waiting] = asyncio.Queue()

    @app.on_waiting
    async def tell(item: Waiting) -> None:
        await told.put(item)
        await (await app.get(item.run_key)).approve(item.call_id, by="ann")

    run = await app.enqueue("till", "pay back", key="r1", tags=["vip"])
    async with app.worker():
        assert await run.result(timeout=PATIENCE_SECONDS) == "done"
    item = told.get_nowait()
    assert told.empty()
    assert (item.run_key, item.agent, item.queue, item.tags, item.path) == (
        *("r1", "till", "agents", ["vip"], ["r1"]),
    )
    assert (item.kind, item.call_id, item.tool_name, item.args) == (
        *("approval", "1.0", "pay_back", {"amount": 7}),
    )
    assert item.request["schema"]["properties"]["amount"] == {"type": "integer"}


async def test_question_is_told_with_its_choices(app: Durably) -> None:
    ask = [call("ask_choice", question="Which colour?", choices=["red", "blue"])]
    toolset = durably.human.toolset()
    app.register(Agent(Script(ask, "done").model, name="asker", toolsets=[toolset]))
    told: list[Waiting] = []
    app.on_waiting(told.append)
    await app.enqueue("asker", "paint")
    await app.drain()
    (item,) = told
    assert (item.kind, item.question, item.choices) == (
        *("question", "Which colour?", ["red", "blue"]),
    )


async def test_escalation_is_told_too(app: Durably) -> None:
    till(app, approve_within=0.01, on_expiry="escalate")
    reasons: list[str] = []
    escalated = asyncio.Event()

    @app.on_waiting
    async def tell(item: Waiting) -> None:
        reasons.append(item.reason)
        if item.reason == "escalated":
            escalated.set()

    run = await app.enqueue("till", "pay back")
    async with app.worker():
        await asyncio.wait_for(escalated.wait(), PATIENCE_SECONDS)
    assert reasons[-1] == "escalated"
    assert (await run.refresh()).record.tags == ["escalated"]


async def test_escalated_run_waits_and_goes_on_in_the_queue_that_was_declared(
    app: Durably,
) -> None:
    till(app, approve_within=0.01, on_expiry="escalate", escalate_queue="urgent")
    queues: list[str] = []
    app.on_waiting(lambda item: queues.append(item.queue))
    run = await app.enqueue("till", "pay back")
    assert app.default_queues() == {"agents": 20, "urgent": 20}
    async with app.worker({"agents": 1}):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "urgent" not in queues:
                await asyncio.sleep(0.02)
    assert [item.run_key for item in await app.inbox(queue="urgent")] == [run.key]
    await run.approve("1.0")
    async with app.worker({"urgent": 1}):
        assert await run.result(timeout=PATIENCE_SECONDS) == "done"


async def test_examination_finds_what_nobody_could_be_told_of(app: Durably) -> None:
    till(app)
    await app.enqueue("till", "pay back")
    await app.drain()
    (notice,) = await app.ledger.write(notices.claim, 60.0, 5)
    await app.ledger.write(notices.failed, notice, [], "slack: away", None)
    (found,) = [f for f in await app.examine() if f.subject == "hooks"]
    assert (found.status, found.text) == (
        FindingStatus.WARNING,
        "nobody could be told of 1 that wait in `durably inbox`; events say why",
    )


async def test_agent_that_changed_is_told_as_waiting_itself(app: Durably) -> None:
    def agent(instructions: str) -> Agent[None, str]:
        look = [call("look")]
        return Agent(Script(look, "done").model, name="looker", instructions=instructions)

    first = agent("Look.")

    @first.tool_plain(metadata=effects.once(approve=True))
    async def look() -> str:
        return "seen"

    app.register(first, on_change="suspend")
    run = await app.enqueue("looker", "x")
    await app.drain()
    await run.approve("1.0")
    changed = Durably(app.settings.url)
    second = agent("Look twice.")
    second.tool_plain(metadata=effects.once(approve=True))(look)
    changed.register(second, on_change="suspend")
    told: list[Waiting] = []
    changed.on_waiting(told.append)
    await changed.drain()
    await changed.close()
    (item,) = told
    assert (item.kind, item.call_id, item.effect) == ("change", "", None)
    assert "changes" in item.request


@pytest.fixture
def never() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_hook_that_hangs_holds_up_no_run(app: Durably, never: threading.Event) -> None:
    till(app)
    entered = threading.Event()

    @app.on_waiting
    def hangs(_: Waiting) -> None:
        entered.set()
        never.wait()

    first = await app.enqueue("till", "pay back")
    async with app.worker():
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not entered.is_set():
                await asyncio.sleep(0.02)
        second = await app.enqueue("till", "pay back")
        await reach(second, RunState.SUSPENDED)
        for run in (first, second):
            await run.approve("1.0")
            assert await run.result(timeout=PATIENCE_SECONDS) == "done"


async def test_script_that_suspends_tells_before_it_leaves(app: Durably) -> None:
    agent = till(app)
    told: list[str] = []
    app.on_waiting(lambda item: told.append(item.run_key))
    for _ in range(2):
        with pytest.raises(RunSuspended):
            await app.run(agent, "pay back", key="r1")
    assert told == ["r1"]


async def test_hook_that_is_added_while_a_worker_works_is_called(app: Durably) -> None:
    till(app)
    run = await app.enqueue("till", "pay back")
    told = asyncio.Event()
    async with app.worker():
        await reach(run, RunState.SUSPENDED)

        @app.on_waiting
        async def tell(_: Waiting) -> None:
            told.set()

        await asyncio.wait_for(told.wait(), PATIENCE_SECONDS)


@ON_SQLITE
async def test_what_cannot_be_called_is_refused(app: Durably) -> None:
    url: Any = "https://example.com"
    with pytest.raises(ConfigError, match="is no function"):
        app.on_waiting(url)
