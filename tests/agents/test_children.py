"""Runs that a tool starts: started once, waited for without a worker, and part of their parent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import UsageLimits

import durably
from durably import ChildFailed, Durably, KeyConflict, NotDone, RunState, effects
from durably.execution.ends import tell_ends
from durably.ledger import children, runs
from durably.ledger.written import ToolCall
from durably.records import CallPosition, NewRun
from support.office import Office, step_states
from support.scripted import NOW, Script, call


def researcher(app: Durably, *script: Any, name: str = "researcher", **options: Any) -> Script:
    """A child agent; its script says what it does."""
    answers = Script(*(script or ("found it",)))
    app.register(Agent(answers.model, name=name), retry=NOW, **options)
    return answers


async def test_child_is_a_run_of_its_own_and_its_output_comes_back(
    app: Durably, log: list[str]
) -> None:
    async def work() -> str:
        log.append("begin")
        return await durably.run_child("researcher", "look it up", key="child")

    researcher(app)
    office = Office(app, work)
    run = await office.run(tags=["tenant:a"], priority=3)
    assert run.state is RunState.COMPLETED
    assert office.answers == ["found it"]
    assert log == ["begin", "begin"]
    (child,) = await run.children()
    assert (child.key, child.state) == ("child", RunState.COMPLETED)
    assert child.record.parent_id == run.record.id
    assert (child.record.tags, child.record.priority) == (["tenant:a"], 3)
    assert await step_states(run) == {"1.0/run child": "done"}


async def test_parent_holds_no_worker_while_its_child_runs(app: Durably, log: list[str]) -> None:
    """One place in the queue is enough for both."""

    async def work() -> str:
        return await durably.run_child("researcher", "look it up")

    researcher(app)
    office = Office(app, work)
    run = await app.enqueue(office.agent, "go", key="r1")
    async with app.worker({"agents": 1}):
        assert await run.result(timeout=120) == "done"
    (child,) = await run.children()
    assert child.key == "r1:1.0/run researcher"


async def test_child_output_has_its_type(app: Durably, log: list[str]) -> None:
    class Finding(BaseModel):
        page: int

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return ModelResponse(parts=[ToolCallPart(info.output_tools[0].name, {"page": 7})])

    agent = Agent(FunctionModel(answer), name="finder", output_type=Finding)
    app.register(agent)

    async def work() -> str:
        finding = await durably.run_child(agent, "which page?")
        assert isinstance(finding, Finding)
        return f"page {finding.page}"

    office = Office(app, work)
    await office.run()
    assert office.answers == ["page 7"]


async def test_several_children_run_at_the_same_time(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        found = await asyncio.gather(
            *(durably.run_child("researcher", f"part {n}", key=f"part-{n}") for n in range(3))
        )
        return ", ".join(found)

    researcher(app)
    office = Office(app, work)
    run = await office.run()
    assert run.state is RunState.COMPLETED
    assert office.answers == ["found it, found it, found it"]
    assert [c.key for c in await run.children()] == ["part-0", "part-1", "part-2"]


async def test_child_is_not_started_twice(app: Durably, log: list[str]) -> None:
    """However often the parent's tool runs again, before and after the child ends."""

    async def work() -> str:
        found = await durably.run_child("researcher", "look it up")
        log.append("found")
        if len(log) < 3:
            raise NotDone("once more")
        return found

    answers = researcher(app)
    office = Office(app, work)
    run = await office.go_on(await office.go_on(await office.run()))
    assert run.state is RunState.COMPLETED
    assert answers.requests == 1
    assert len(await run.children()) == 1


async def test_usage_of_a_child_counts_to_its_parent(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        await durably.run_child("researcher", "look it up")
        if not log:
            log.append("again")
            raise NotDone("again")
        return "ok"

    researcher(app, [call("look")], "found it")
    agent = app.registry.get("researcher").agent

    @agent.tool_plain(metadata=effects.READ)
    def look() -> str:
        return "seen"

    office = Office(app, work)
    run = await office.go_on(await office.run())
    (child,) = await run.children()
    assert child.record.usage["requests"] == 2
    assert run.record.usage["requests"] == 2 + 2
    assert run.record.usage["tool_calls"] == 1 + 1
    both = child.record.usage["output_tokens"]
    assert run.record.usage["output_tokens"] > both > 0


async def test_usage_of_a_child_counts_once_however_the_parent_goes_on(
    app: Durably, log: list[str]
) -> None:
    """Also where the tool's own result is recorded, and the run fails after it."""

    async def work() -> str:
        return await durably.run_child("researcher", "look it up")

    researcher(app)
    office = Office(app, work)
    office.script.fail_once = {1: RuntimeError("the model is down")}
    run = await office.go_on(await office.run())
    assert run.state is RunState.COMPLETED
    assert run.record.failures == 1
    assert run.record.usage["requests"] == 2 + 1


async def test_child_that_two_calls_wait_for_counts_once(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        return await durably.run_child("researcher", "look it up", key="child")

    answers = researcher(app)
    office = Office(app, work)
    office.script.steps[0] = [call("work", "a"), call("work", "b")]
    run = await office.run()
    assert run.state is RunState.COMPLETED
    assert office.answers == ["found it", "found it"]
    assert answers.requests == 1
    assert run.record.usage["requests"] == 2 + 1


async def test_limits_of_the_parent_count_its_children(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        return await durably.run_child("researcher", "look it up")

    researcher(app)
    office = Office(app, work, usage_limits=UsageLimits(request_limit=2))
    run = await office.run()
    assert run.state is RunState.DISCARDED
    assert "request_limit" in str(run.record.error)


async def test_approval_of_a_child_is_in_the_inbox_with_its_path(
    app: Durably, log: list[str]
) -> None:
    async def work() -> str:
        return await durably.run_child("refunder", "refund", key="child")

    answers = researcher(app, [call("pay")], "paid", name="refunder")

    @app.registry.get("refunder").agent.tool_plain(metadata=effects.once(approve=True))
    def pay() -> str:
        log.append("pay")
        return "ok"

    office = Office(app, work)
    run = await office.suspended()
    (item,) = await app.inbox()
    assert (item.run_key, item.path) == ("child", ["r1", "child"])
    assert run.describe_waiting() == "Run 'r1' waits for run 'child'."
    await (await app.get("child")).approve("1.0")
    await office.go_on(run)
    assert run.state is RunState.COMPLETED
    assert (log, answers.requests) == (["pay"], 2)


async def test_cancelling_the_parent_cancels_its_children(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        return await durably.run_child("middle", "look it up", key="middle")

    async def pass_on() -> str:
        return await durably.run_child("waiter", "wait", key="waiter")

    async def wait() -> str:
        return await durably.wait_for_signal("never")

    Office(app, wait, name="waiter")
    Office(app, pass_on, name="middle")
    office = Office(app, work)
    run = await office.suspended()
    await run.cancel(by="ann")
    for key in ("middle", "waiter"):
        assert (await app.get(key)).state is RunState.CANCELLED
    assert (await run.refresh()).record.tells_end is False


async def test_retried_parent_goes_on_with_the_children_that_were_cancelled_with_it(
    app: Durably, log: list[str]
) -> None:
    async def work() -> str:
        return await durably.run_child("waiter", "wait", key="waiter")

    async def wait() -> str:
        return await durably.wait_for_signal("go")

    Office(app, wait, name="waiter")
    office = Office(app, work)
    run = await office.suspended()
    await run.cancel()
    await run.retry()
    await office.go_on(run)
    await app.signal("waiter", "go", "there")
    await office.go_on(run)
    assert run.state is RunState.COMPLETED
    assert office.answers == ["done"]


@pytest.mark.parametrize("caught", [True, False])
async def test_child_without_an_output_fails_in_the_tool(
    app: Durably, log: list[str], caught: bool
) -> None:
    async def work() -> str:
        try:
            return await durably.run_child("researcher", "look it up", key="child")
        except ChildFailed as error:
            if not caught:
                raise
            return f"{error.key} {error.state}"

    researcher(app, RuntimeError("no library"), max_attempts=1)
    office = Office(app, work)
    run = await office.run()
    assert run.state is RunState.COMPLETED
    said = str(office.answers[0])
    assert said == "child discarded" if caught else "no library" in said


async def test_child_that_is_cancelled_by_a_person_fails_in_the_tool(
    app: Durably, log: list[str]
) -> None:
    async def work() -> str:
        try:
            return await durably.run_child("waiter", "wait", key="child")
        except ChildFailed as error:
            return error.state

    async def wait() -> str:
        return await durably.wait_for_signal("never")

    Office(app, wait, name="waiter")
    office = Office(app, work)
    run = await office.suspended()
    await (await app.get("child")).cancel(by="ann")
    await office.go_on(run)
    assert office.answers == ["cancelled"]


async def test_key_of_another_run_is_refused(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        try:
            return await durably.run_child("researcher", "look it up", key="taken")
        except KeyConflict as error:
            return str(error)

    researcher(app)
    await app.enqueue("researcher", "something else", key="taken")
    office = Office(app, work)
    await office.run()
    assert "no child of this one" in office.answers[0]


async def test_unknown_agent_is_refused_before_anything_is_started(
    app: Durably, log: list[str]
) -> None:
    async def work() -> str:
        return await durably.run_child("nobody", "look it up")

    office = Office(app, work)
    run = await office.run()
    assert run.state is RunState.DISCARDED
    assert "No agent named 'nobody'" in str(run.record.error)
    assert await run.children() == []


async def test_end_of_a_child_that_nobody_told_reaches_its_parent(
    app: Durably, log: list[str]
) -> None:
    """A worker that dies right after the child ended, before it could say so."""

    async def work() -> str:
        return await durably.run_child("waiter", "wait", key="child")

    async def wait() -> str:
        return await durably.wait_for_signal("never")

    Office(app, wait, name="waiter")
    office = Office(app, work)
    run = await office.suspended()
    await app.ledger.write(runs.cancel, "child", "ann")
    assert (await run.refresh()).state is RunState.SUSPENDED
    await tell_ends(app.ledger)
    assert (await run.refresh()).state is RunState.AVAILABLE
    assert (await app.get("child")).record.tells_end is False
    await tell_ends(app.ledger)


async def test_late_attempt_starts_no_child(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        return await durably.run_child("researcher", "look it up", key="child")

    researcher(app)
    office = Office(app, work)
    run = await office.run()
    late = run.record.claim._replace(attempt=1)
    made = NewRun(key="second", agent="researcher", prompt='"x"', parent_id=run.record.id)
    tool = ToolCall(CallPosition(1, 0, "run x"), "work", "c", "{}", "read", None, "k")
    with pytest.raises(durably.LeaseLost):
        await app.ledger.write(children.begin, late, tool, made)
    assert [c.key for c in await run.children()] == ["child"]


async def test_script_executes_the_children_of_its_run(app: Durably, log: list[str]) -> None:
    async def work() -> str:
        return await durably.run_child("researcher", "look it up")

    researcher(app, queue="elsewhere")
    office = Office(app, work)
    assert await app.run(office.agent, "go", key="r1") == "done"
