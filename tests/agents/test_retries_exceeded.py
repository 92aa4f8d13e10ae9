"""A tool that asks for one retry too many: the attempt fails, and the tool's word still counts."""

import pytest
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.models.test import TestModel

from durably import Durably, RunState, effects
from support.scripted import NOW, Script, call

TWICE = ([call("charge")], [call("charge")], "done")


async def test_a_once_tool_that_says_no_too_often_is_not_in_doubt(app: Durably) -> None:
    agent = Agent(Script(*TWICE).model, name="support")

    @agent.tool_plain(metadata=effects.once())
    def charge() -> str:
        raise ModelRetry("no such card")

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert run.record.failures == 1
    assert [(e.state, e.attempt) for e in await run.effects()] == [("failed", 1)] * 2


async def test_another_agent_that_fails_inside_a_once_tool_leaves_it_in_doubt(
    app: Durably,
) -> None:
    """The inner agent may have done anything before it failed."""
    inner = Agent(TestModel(), name="inner")

    @inner.tool_plain
    def refuse() -> str:
        raise ModelRetry("no")

    agent = Agent(Script([call("delegate")], "done").model, name="outer")

    @agent.tool_plain(metadata=effects.once())
    async def delegate() -> str:
        return (await inner.run("go on")).output

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).state is RunState.SUSPENDED
    assert [e.state for e in await run.effects()] == ["in_doubt"]


@pytest.mark.parametrize("policy", [effects.READ, effects.IDEMPOTENT, effects.TRANSACTIONAL])
async def test_under_other_policies_the_run_goes_on_as_well(app: Durably, policy: dict) -> None:
    agent = Agent(Script(*TWICE).model, name="support")

    @agent.tool_plain(metadata=policy)
    def charge() -> str:
        raise ModelRetry("no such card")

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
