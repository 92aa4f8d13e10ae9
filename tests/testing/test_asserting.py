"""Assertions about runs and effects pass where they should, and say what there is where not."""

from __future__ import annotations

import re

import pytest
from pydantic_ai import Agent

from durably import Durably, effects
from durably.testing import (
    ScriptedModel,
    assert_effects,
    assert_enqueued,
    call,
    drain,
    refute_enqueued,
)

pytestmark = pytest.mark.parametrize("server", ["sqlite"], indirect=True)


@pytest.fixture
def clerk() -> Agent[None, str]:
    agent = Agent(ScriptedModel([call("look"), call("mail", to="ann")], "Done."), name="clerk")

    @agent.tool_plain(metadata=effects.READ)
    async def look() -> str:
        return "nothing"

    @agent.tool_plain(metadata=effects.once(on_doubt="ask"))
    async def mail(to: str) -> str:
        raise TimeoutError("no answer")

    return agent


async def test_runs_are_found_by_all_that_is_asked(
    durably_app: Durably, clerk: Agent[None, str]
) -> None:
    await refute_enqueued(durably_app)
    with pytest.raises(AssertionError, match=r"No run with anything was enqueued\. There are no"):
        await assert_enqueued(durably_app)
    first = await durably_app.enqueue(
        clerk, "Order 42", key="a", queue="vip", tags=["x", "y"], args={"n": 1}, thread="t"
    )
    await durably_app.enqueue("biller", "Order 43", key="b")
    found = await assert_enqueued(
        durably_app,
        clerk,
        prompt="Order 42",
        key="a",
        queue="vip",
        tags=["y"],
        thread="t",
        state="available",
        args={"n": 1},
        count=1,
    )
    assert [run.key for run in found] == [first.key]
    assert len(await assert_enqueued(durably_app, prompt=re.compile(r"Order \d"), count=2)) == 2
    await assert_enqueued(durably_app, "biller", prompt=lambda prompt: prompt.endswith("43"))
    for wrong in (
        {"agent": "waiter"},
        {"prompt": "Order"},
        {"key": "c"},
        {"queue": "agents", "key": "a"},
        {"tags": ["x", "z"]},
        {"thread": "u"},
        {"state": "completed"},
        {"args": {"n": 2}},
    ):
        await refute_enqueued(durably_app, **wrong)  # type: ignore[arg-type]
        with pytest.raises(AssertionError, match="No run with "):
            await assert_enqueued(durably_app, **wrong)  # type: ignore[arg-type]


async def test_messages_list_the_runs_that_there_are(
    durably_app: Durably, clerk: Agent[None, str]
) -> None:
    await durably_app.enqueue(clerk, "Order 42", key="a", tags=["x"])
    await durably_app.enqueue(clerk, "Order 43", key="b")
    with pytest.raises(AssertionError) as raised:
        await assert_enqueued(durably_app, clerk, prompt="Order 44", queue="vip")
    assert str(raised.value) == (
        "No run with agent 'clerk', prompt 'Order 44', queue 'vip' was enqueued. "
        "There are 2 runs:\n"
        "  a  clerk  available  queue agents  tags x  'Order 42'  (another prompt, queue)\n"
        "  b  clerk  available  queue agents  'Order 43'  (another prompt, queue)"
    )
    with pytest.raises(AssertionError, match="2 runs with agent 'clerk' were enqueued, not 1"):
        await assert_enqueued(durably_app, clerk, count=1)
    with pytest.raises(AssertionError, match="1 run with key 'b' was enqueued, not 2"):
        await assert_enqueued(durably_app, key="b", count=2)
    with pytest.raises(AssertionError, match="No run with key 'b' should have been enqueued"):
        await refute_enqueued(durably_app, key="b")


async def test_effects_are_compared_with_what_the_ledger_holds(
    durably_app: Durably, clerk: Agent[None, str]
) -> None:
    run = await durably_app.enqueue(clerk, "Look.", key="a")
    await drain(durably_app)
    assert len(await assert_effects(run, {"look": 1, "mail": "in_doubt"})) == 2
    await assert_effects(run, {"look": ["done"], "charge": None, "mail": ["in_doubt"]})
    await assert_effects(run, {"look": "done"}, exact=False)
    with pytest.raises(AssertionError) as raised:
        await assert_effects(run, {"mail": 2, "charge": "done"})
    assert str(raised.value) == (
        "The effects of run 'a' (suspended) are others:\n"
        "  mail: expected done, 2 times, there is in_doubt\n"
        "  charge: expected done, there are none\n"
        "  look: not expected, there is done\n"
        "All its effects:\n"
        "  1.0  look({})  done  [read, attempt 1]\n"
        '  1.1  mail({"to":"ann"})  in_doubt: TimeoutError: no answer  [once, attempt 1]'
    )
