"""Any pydantic-ai agent, unchanged: deps, outputs, tools of every kind, capabilities, usage."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fastmcp.client.transports import StdioTransport
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    BinaryContent,
    ModelRetry,
    RunContext,
    TextOutput,
    ToolOutput,
    ToolReturn,
    UsageLimits,
)
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ImageUrl, ModelRequest, ModelResponse, UserPromptPart
from pydantic_ai.toolsets import FunctionToolset

from durably import Durably, RunInfo, RunState, TransitionRefused, effects
from support import mcp_shop
from support.databases import ON_SQLITE
from support.scripted import NOW, Script, call, tool_texts


@dataclass
class Shop:
    name: str


def plain(run: RunInfo) -> Shop:
    return Shop(run.args["shop"])


async def coroutine(run: RunInfo) -> Shop:
    return Shop(run.args["shop"])


@contextmanager
def manager(run: RunInfo) -> Iterator[Shop]:
    OPEN.append(run.key)
    yield Shop(run.args["shop"])
    OPEN.remove(run.key)


@asynccontextmanager
async def async_manager(run: RunInfo) -> AsyncIterator[Shop]:
    OPEN.append(run.key)
    yield Shop(run.args["shop"])
    OPEN.remove(run.key)


OPEN: list[str] = []


@pytest.mark.parametrize("factory", [plain, coroutine, manager, async_manager])
async def test_a_deps_factory_gets_the_run_and_its_args(app: Durably, factory: Any) -> None:
    agent = Agent(Script([call("shop")], "done").model, deps_type=Shop, name="shop")
    seen: list[str] = []

    @agent.tool(metadata=effects.READ)
    def shop(ctx: RunContext[Shop]) -> str:
        seen.append(ctx.deps.name)
        return ctx.deps.name

    app.register(agent, deps=factory)
    run = await app.enqueue(agent, "hi", args={"shop": "corner"})
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert seen == ["corner"]
    assert OPEN == []


async def test_deps_may_be_a_plain_object(app: Durably) -> None:
    agent = Agent(Script([call("shop")], "done").model, deps_type=Shop, name="shop")

    @agent.tool(metadata=effects.READ)
    def shop(ctx: RunContext[Shop]) -> str:
        return ctx.deps.name

    app.register(agent, deps=Shop("corner"))
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"


class Refund(BaseModel):
    order: int
    due: date


@pytest.mark.parametrize("output_type", [Refund, ToolOutput(Refund, name="final_result")])
async def test_a_structured_output_comes_back_typed_in_another_process(
    app: Durably, tmp_path: Path, output_type: Any
) -> None:
    script = Script(
        [call("final_result", order="not a number", due="2026-01-02")],
        [call("final_result", order=42, due="2026-01-02")],
    )
    agent: Agent[None, Refund] = Agent(script.model, output_type=output_type, name="refunds")
    app.register(agent)
    run = await app.enqueue(agent, "hi", key="r")
    await app.drain()
    assert (await run.refresh()).output() == Refund(order=42, due=date(2026, 1, 2))
    async with Durably(app.settings.url, agents=[agent]) as other:
        assert (await other.get("r")).output() == Refund(order=42, due=date(2026, 1, 2))
    async with Durably(app.settings.url) as stranger:
        assert (await stranger.get("r")).output() == {"order": 42, "due": "2026-01-02"}


async def test_a_text_output_function(app: Durably) -> None:
    def words(text: str) -> list[str]:
        return text.split()

    agent = Agent(Script("so it is").model, output_type=TextOutput(words), name="words")
    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == ["so", "it", "is"]


async def test_half_a_batch_of_parallel_tools_is_kept(app: Durably, log: list[str]) -> None:
    batch = [call("pay", "a", n=1), call("look", "b"), call("pay", "c", n=2)]
    agent = Agent(Script(batch, "done").model, name="batch")
    paid = asyncio.Event()
    fail = [True]

    @agent.tool_plain
    async def pay(n: int) -> str:
        log.append(f"pay {n}")
        if len([entry for entry in log if entry.startswith("pay")]) == 2:
            paid.set()
        return f"paid {n}"

    @agent.tool_plain(metadata=effects.READ)
    async def look() -> str:
        await paid.wait()
        log.append("look")
        # Only once the ledger knows of both payments does this attempt fail.
        async with asyncio.timeout(60):
            while len([e for e in await run.effects() if e.state == "done"]) < 2:
                await asyncio.sleep(0.01)
        if fail:
            fail.clear()
            raise RuntimeError("the shop is down")
        return "seen"

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).output() == "done"
    assert sorted(log) == ["look", "look", "pay 1", "pay 2"]
    assert run.record.usage["tool_calls"] == 3


async def test_sequential_and_sync_tools(app: Durably, log: list[str]) -> None:
    batch = [call("first", "a"), call("second", "b")]
    agent = Agent(Script(batch, "done").model, name="order")
    loop_thread = threading.get_ident()

    @agent.tool_plain(sequential=True)
    def first() -> str:
        assert threading.get_ident() != loop_thread
        log.append("first")
        return "1"

    @agent.tool_plain(sequential=True)
    async def second() -> str:
        log.append("second")
        return "2"

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == ["first", "second"]


async def test_rich_tool_returns_survive_a_resume(app: Durably) -> None:
    png = BinaryContent(b"\x89PNG", media_type="image/png")
    script = Script([call("photo", "a"), call("file", "b")], [call("file", "c")], "done")
    script.fail_once[1] = RuntimeError("the model is down")
    agent = Agent(script.model, name="photos")

    @agent.tool_plain
    def photo() -> ToolReturn:
        return ToolReturn("a photo", content=["look:", png], metadata={"taken": [1, 2]})

    @agent.tool_plain(metadata=effects.IDEMPOTENT)
    def file() -> BinaryContent:
        return png

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    before, after = script.seen[1][-1], script.seen[2][-1]
    assert isinstance(before, ModelRequest)
    assert isinstance(after, ModelRequest)
    assert before.parts[0].content == after.parts[0].content == "a photo"
    assert before.parts[1].content.data == after.parts[1].content.data == png.data
    assert after.parts[0].metadata == {"taken": [1, 2]}
    assert isinstance(after.parts[-1], UserPromptPart)


async def test_a_prompt_with_pictures(app: Durably) -> None:
    script = Script("done")
    agent = Agent(script.model, name="see")
    app.register(agent)
    prompt = [
        "what is this?",
        ImageUrl("https://example.com/a.png"),
        BinaryContent(b"x", media_type="image/png"),
    ]
    run = await app.enqueue(agent, prompt)
    await app.drain()
    assert (await run.refresh()).output() == "done"
    for sent in (script.seen[0][0].parts[0].content, await run.prompt()):
        assert sent[:2] == prompt[:2]
        assert sent[2].data == b"x"


async def test_dynamic_instructions_are_made_anew(app: Durably) -> None:
    script = Script([call("look")], "done")
    script.fail_once[1] = RuntimeError("down")
    agent = Agent(script.model, name="dynamic", instructions="Be kind.")
    moods = iter(["calm", "calmer", "calmest", "calmest"])

    @agent.instructions
    def mood() -> str:
        return f"Be {next(moods)}."

    @agent.tool_plain(metadata=effects.READ)
    def look() -> str:
        return "seen"

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert "agent_changed" not in {event.kind for event in await run.events()}
    assert "Be kind." in str(script.seen[-1][-1].instructions)


async def test_toolsets_and_their_policies(app: Durably, log: list[str]) -> None:
    toolset: FunctionToolset[None] = FunctionToolset()

    @toolset.tool_plain(metadata=effects.READ)
    def look() -> str:
        log.append("look")
        return "seen"

    agent = Agent(
        Script([call("pre_look")], "done").model, toolsets=[toolset.prefixed("pre")], name="sets"
    )
    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert [e.policy for e in await run.effects()] == ["read"]


class Loud(AbstractCapability[Any]):
    """A capability as an application may have it: changes arguments, results and responses."""

    async def before_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any) -> Any:
        return {**args, "word": args["word"].upper()}

    async def after_tool_execute(
        self, ctx: Any, *, call: Any, tool_def: Any, args: Any, result: Any
    ) -> Any:
        return f"{result}!"

    async def after_model_request(self, ctx: Any, *, request_context: Any, response: Any) -> Any:
        REQUESTS.append(len(response.parts))
        return response


REQUESTS: list[int] = []


class Streaming(AbstractCapability[Any]):
    """Forces pydantic-ai to stream model responses."""

    async def wrap_run_event_stream(self, ctx: Any, *, stream: Any) -> AsyncIterator[Any]:
        async for event in stream:
            EVENTS.append(type(event).__name__)
            yield event


EVENTS: list[str] = []


async def test_the_agents_own_capabilities_go_on_working(app: Durably, log: list[str]) -> None:
    REQUESTS.clear()
    script = Script([call("say", word="hello")], "done")
    script.fail_once[1] = RuntimeError("down")
    agent = Agent(script.model, name="loud", capabilities=[Loud()])

    @agent.tool_plain
    def say(word: str) -> str:
        log.append(word)
        return word

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == ["HELLO"]
    assert [tool_texts(messages) for messages in script.seen[1:]] == [["HELLO!"], ["HELLO!"]]
    assert len(REQUESTS) == 2  # a replayed response is no request


async def test_a_response_that_a_capability_rejects_is_kept(app: Durably) -> None:
    class Picky(AbstractCapability[Any]):
        async def after_model_request(
            self, ctx: Any, *, request_context: Any, response: Any
        ) -> Any:
            if response.text == "rude":
                raise ModelRetry("be polite")
            return response

    script = Script("rude", "polite")
    script.fail_once[1] = RuntimeError("down")
    agent = Agent(script.model, name="picky", capabilities=[Picky()])
    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).output() == "polite"
    responses = [m for m in await run.history() if isinstance(m, ModelResponse)]
    assert [r.text for r in responses] == ["rude", "polite"]


async def test_usage_is_the_runs_over_all_attempts(app: Durably) -> None:
    def agent_of(name: str, *, fails: bool) -> tuple[Agent[None, str], Script]:
        script = Script([call("look")], [call("look")], "done")
        if fails:
            script.fail_once = {1: RuntimeError("down"), 2: RuntimeError("down")}
        agent = Agent(script.model, name=name)

        @agent.tool_plain(metadata=effects.READ)
        def look() -> str:
            return "seen"

        return agent, script

    usages = []
    for fails in (False, True):
        agent, _ = agent_of(f"fails-{fails}", fails=fails)
        app.register(agent, retry=NOW)
        run = await app.enqueue(agent, "hi")
        await app.drain()
        await run.refresh()
        usages.append(run.record.usage)
    assert usages[0] == usages[1]
    assert usages[0]["requests"] == 3
    assert usages[0]["tool_calls"] == 2


async def test_usage_limits_mean_the_run_not_the_attempt(app: Durably) -> None:
    script = Script([call("look")], [call("look")], "done")
    script.fail_once = {1: RuntimeError("down")}
    agent = Agent(script.model, name="limited")

    @agent.tool_plain(metadata=effects.READ)
    def look() -> str:
        return "seen"

    app.register(agent, retry=NOW, usage_limits=UsageLimits(request_limit=2))
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    assert run.state is RunState.DISCARDED
    assert "UsageLimitExceeded" in str(run.record.error)
    assert script.requests == 3  # two answered and one that failed; a third was never sent


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_run_continues_after_the_final_response_without_asking_again(
    app: Durably, streaming: bool
) -> None:
    class Fragile(AbstractCapability[Any]):
        async def after_run(self, ctx: Any, *, result: Any) -> Any:
            if FRAGILE:
                raise FRAGILE.pop()
            return result

    FRAGILE = [RuntimeError("after the last response")]
    script = Script([call("look")], "done")
    capabilities: list[Any] = [Fragile(), *([StreamAll()] if streaming else [])]
    agent = Agent(
        script.stream_model if streaming else script.model,
        name="final",
        instructions="Be kind.",
        capabilities=capabilities,
    )

    @agent.tool_plain
    def look() -> str:
        return "seen"

    app.register(agent, retry=NOW)
    run = await app.enqueue(agent, "hi")
    assert await app.drain() == 2
    assert (await run.refresh()).output() == "done"
    assert script.requests == 2
    assert [m.kind for m in await run.history()] == ["request", "response"] * 2


class StreamAll(Streaming):
    """Streams, and fails no run."""


async def test_a_tool_that_needs_approval_waits_for_a_person(app: Durably, log: list[str]) -> None:
    script = Script([call("pay", "a"), call("look", "b")], "done")
    agent = Agent(script.model, name="approve")

    @agent.tool_plain(requires_approval=True)
    def pay() -> str:
        log.append("paid")
        return "paid"

    @agent.tool_plain
    def look() -> str:
        log.append("looked")
        return "seen"

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.refresh()
    assert run.state is RunState.SUSPENDED
    assert run.record.waiting_on == {"kind": "effects", "effects": ["1.0"]}
    assert log == ["looked"]
    with pytest.raises(TransitionRefused, match="has not run"):
        await run.resolve("1.0", again=True)
    await run.resolve("1.0", failed="not today")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == ["looked"]
    assert "not today" in str(tool_texts(script.seen[-1]))


async def test_a_person_answers_in_place_of_a_tool_that_needs_approval(
    app: Durably, log: list[str]
) -> None:
    script = Script([call("pay", "a")], "done")
    agent = Agent(script.model, name="approve")

    @agent.tool_plain(requires_approval=True)
    def pay() -> str:
        log.append("paid")
        return "paid"

    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    await run.resolve("1.0", done="paid by hand")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert log == []
    assert tool_texts(script.seen[-1]) == ["paid by hand"]


@ON_SQLITE
async def test_mcp_annotations_are_policies(app: Durably) -> None:
    transport = StdioTransport(sys.executable, [mcp_shop.__file__])
    batch = [call("look", "a"), call("put", "b"), call("pay", "c")]
    agent = Agent(
        Script(batch, "done").model, toolsets=[MCPToolset(transport, init_timeout=300)], name="mcp"
    )
    app.register(agent)
    run = await app.enqueue(agent, "hi")
    await app.drain()
    assert (await run.refresh()).output() == "done"
    assert {e.tool_name: e.policy for e in await run.effects()} == {
        "look": "read",
        "put": "idempotent",
        "pay": "once",
    }
