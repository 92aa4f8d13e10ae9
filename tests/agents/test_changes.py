"""A deploy in the middle of a run: tools, instructions and model change between attempts."""

from typing import Any

import pytest
from pydantic_ai import Agent

from durably import Durably, RetryPolicy, RunState, effects
from support.scripted import NOW, Script, call, tool_texts

TWO_CALLS: tuple[Any, ...] = ([call("look", n=1)], [call("look", n=2)], "done")


def make(
    *steps: Any,
    tools: tuple[str, ...] = ("look",),
    instructions: str = "Be kind.",
    model: str = "script",
    parameter: str = "n",
    log: list[str] | None = None,
    fail_once: dict[int, Exception] | None = None,
) -> tuple[Agent[None, str], Script]:
    """The agent as one deploy has it."""
    script = Script(*(steps or TWO_CALLS), name=model)
    script.fail_once = dict(fail_once or {})
    agent = Agent(script.model, name="support", instructions=instructions)
    for name in tools:

        def tool(_name: str = name, **args: int) -> str:
            if log is not None:
                log.append(f"{_name} {args}")
            return f"{_name} did {sorted(args.items())}"

        source = f"def {name}({parameter}: int) -> str: return _tool({parameter}={parameter})"
        scope: dict[str, Any] = {"_tool": tool}
        exec(source, scope)
        agent.tool_plain(scope[name], metadata=None if name.startswith("pay") else effects.READ)
    return agent, script


async def stop_after(app: Durably, responses: int, agent: Agent[None, str], script: Script) -> None:
    """Run the agent's first attempt until it has made so many requests; it then fails."""
    script.fail_once = {responses: RuntimeError("deploy now")}
    app.register(agent, retry=LATER)
    await app.enqueue(agent, "hi", key="r")
    assert await app.drain() == 1


async def deploy(app: Durably, agent: Agent[None, str], **options: Any) -> Durably:
    """Another process with the new code, on the same ledger."""
    other = Durably(app.settings.url)
    other.register(agent, retry=NOW, **options)
    run = await other.get("r")
    await run.cancel()  # its backoff is long: an operator lets it go on now
    await run.retry()
    await other.drain()
    return other


LATER = RetryPolicy(initial_seconds=3600, max_seconds=3600)
"""Long enough for the new code to be deployed in between."""


async def changes(app: Durably) -> list[dict[str, Any]]:
    run = await app.get("r")
    return [event.data for event in await run.events() if event.kind == "agent_changed"]


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tool added": ({"tools": ("look", "more")}, {"tools_added": ["more"]}),
    "order swapped": ({"tools": ("more", "look")}, {}),
    "instructions": ({"instructions": "Be strict."}, {"instructions": "changed"}),
    "model": (
        {"model": "other"},
        {"model": {"before": "function:script", "after": "function:other"}},
    ),
    "schema": ({"parameter": "m"}, {"tools_changed": ["look"]}),
}


@pytest.mark.parametrize("responses", [1, 2], ids=["early", "late"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_agent_goes_on_and_the_change_is_an_event(
    app: Durably, change: str, responses: int
) -> None:
    new, seen = CHANGES[change]
    tools = ("look", "more") if change == "order swapped" else ("look",)
    await stop_after(app, responses, *make(tools=tools))
    agent, script = make(**new)
    other = await deploy(app, agent)
    assert (await other.get("r")).output() == "done"
    assert script.requests == 3 - responses
    expected = [{"policy": "continue", **seen}] if seen else []
    assert await changes(other) == expected
    await other.close()


@pytest.mark.parametrize("responses", [1, 2], ids=["early", "late"])
async def test_suspend_waits_until_an_operator_accepts_the_change(
    app: Durably, responses: int
) -> None:
    await stop_after(app, responses, *make())
    agent, script = make(instructions="Be strict.")
    other = await deploy(app, agent, on_change="suspend")
    run = await other.get("r")
    assert run.state is RunState.SUSPENDED
    assert run.record.waiting_on == {"kind": "change", "changes": {"instructions": "changed"}}
    assert "durably retry r" in run.describe_waiting()
    assert script.requests == 0
    await run.retry()
    await other.drain()
    assert (await run.refresh()).output() == "done"
    await other.close()


async def test_discard_ends_the_run_with_the_reason(app: Durably) -> None:
    await stop_after(app, 1, *make())
    agent, script = make(model="other")
    other = await deploy(app, agent, on_change="discard")
    run = await other.get("r")
    assert run.state is RunState.DISCARDED
    assert "agent changed" in str(run.record.error)
    assert len(await run.history()) == 2
    assert script.requests == 0
    await other.close()


async def test_a_change_before_the_first_response_is_none(app: Durably) -> None:
    await stop_after(app, 0, *make())
    agent, _ = make(instructions="Be strict.")
    other = await deploy(app, agent, on_change="discard")
    assert (await other.get("r")).output() == "done"
    assert await changes(other) == []
    await other.close()


PAY: tuple[Any, ...] = ([call("pay", n=1)], "done")


async def test_a_result_of_a_removed_tool_still_answers_its_call(
    app: Durably, log: list[str]
) -> None:
    await stop_after(app, 1, *make(*PAY, tools=("pay",), log=log))
    agent, script = make(*PAY, tools=("look",), log=log)
    other = await deploy(app, agent)
    assert (await other.get("r")).output() == "done"
    assert log == ["pay {'n': 1}"]
    assert tool_texts(script.seen[-1]) == ["pay did [('n', 1)]"]
    assert await changes(other) == [
        {"policy": "continue", "tools_added": ["look"], "tools_removed": ["pay"]}
    ]
    await other.close()


async def test_a_result_of_a_tool_with_new_arguments_still_answers_its_call(
    app: Durably, log: list[str]
) -> None:
    await stop_after(app, 1, *make(*PAY, tools=("pay",), log=log))
    agent, script = make(*PAY, tools=("pay",), parameter="cents", log=log)
    other = await deploy(app, agent)
    assert (await other.get("r")).output() == "done"
    assert log == ["pay {'n': 1}"]
    assert tool_texts(script.seen[-1]) == ["pay did [('n', 1)]"]
    await other.close()


@pytest.mark.parametrize("renamed", [True, False])
async def test_the_model_is_told_that_a_tool_is_gone(
    app: Durably, log: list[str], renamed: bool
) -> None:
    """The call was asked for, and had not begun when the code changed."""
    calls = [call("look", "a", n=1), call("check", "b", n=2)]
    agent, script = make(calls, "done", tools=("look", "check"), log=log)
    broken = agent.toolsets[0].tools["look"]  # type: ignore[attr-defined]
    broken.function_schema.function = _raise
    broken.sequential = True
    await stop_after(app, 9, agent, script)
    tools = ("look", "inspect") if renamed else ("look",)
    agent, script = make(calls, "done", tools=tools, log=log)
    other = await deploy(app, agent)
    assert (await other.get("r")).output() == "done"
    look, check = tool_texts(script.seen[-1])
    assert look == "look did [('n', 1)]"
    assert "no longer exists" in check
    assert log == ["look {'n': 1}"]
    sent = script.infos[-1].function_tools
    assert [tool.name for tool in sent] == list(tools)
    await other.close()


def _raise(n: int) -> str:
    raise RuntimeError("deploy now")


async def test_a_removed_tool_in_doubt_still_asks(app: Durably, log: list[str]) -> None:
    agent, script = make(*PAY, tools=("pay",), log=log)
    agent.toolsets[0].tools["pay"].function_schema.function = _raise  # type: ignore[attr-defined]
    await stop_after(app, 9, agent, script)
    agent, script = make(*PAY, tools=("look",), log=log)
    other = Durably(app.settings.url)
    other.register(agent, retry=NOW)
    run = await other.get("r")
    assert run.state is RunState.SUSPENDED
    await run.resolve("1.0", done="paid by hand")
    await other.drain()
    assert (await run.refresh()).output() == "done"
    assert tool_texts(script.seen[-1]) == ["paid by hand"]
    await other.close()
