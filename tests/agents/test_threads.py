"""Threads: a run starts from what the runs before it said and did, and stores only its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry, ToolReturn
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import (
    ConfigError,
    Durably,
    KeyConflict,
    RetryPolicy,
    Run,
    RunCancelled,
    RunState,
    ThreadBusy,
    TransitionRefused,
    effects,
)
from support.clerk import until
from support.databases import ON_SQLITE
from support.provider import check_as_a_provider_does
from support.scripted import NOW, call

T = "customer-7"

type Answer = str | list[ToolCallPart] | Exception


class Talker:
    """A model that answers each prompt by its own script; it refuses what a provider would.

    Attributes:
        seen: what it was sent, request by request.
    """

    def __init__(self, **scripts: list[Answer]) -> None:
        self.scripts = scripts
        self.seen: list[list[ModelMessage]] = []
        self.before: Callable[[str], Any] = lambda _: None
        self.model = FunctionModel(self._answer, model_name="talker")

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        check_as_a_provider_does(messages)
        self.seen.append(list(messages))
        prompt, answered = "", 0
        for message in messages:
            if isinstance(message, ModelResponse):
                answered += 1
                continue
            for part in message.parts:
                if isinstance(part, UserPromptPart) and str(part.content) in self.scripts:
                    prompt, answered = str(part.content), 0
        awaited = self.before(prompt)
        if asyncio.iscoroutine(awaited):
            await awaited
        script = self.scripts[prompt]
        answer = script[min(answered, len(script) - 1)]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, list):
            return ModelResponse(parts=answer)
        if info.output_tools:
            tool = info.output_tools[0].name
            return ModelResponse(parts=[ToolCallPart(tool, {"word": answer}, "call_0")])
        return ModelResponse(parts=[TextPart(answer)])


class Word(BaseModel):
    word: str


def said(messages: list[ModelMessage]) -> list[str]:
    """What was said, in order; instructions are no part of it."""
    texts: list[str] = []
    for message in messages:
        for part in message.parts:
            match part:
                case TextPart() | UserPromptPart() | SystemPromptPart():
                    texts.append(str(part.content))
                case ToolCallPart():
                    texts.append(f"call {part.tool_name}")
                case ToolReturnPart() | RetryPromptPart():
                    texts.append(f"return {part.content}")
                case _:
                    texts.append(part.part_kind)
    return texts


async def own(run: Run[Any]) -> list[str]:
    return said(await run.history())


@pytest.fixture
def talker() -> Talker:
    return Talker(one=["1"], two=["2"], three=["3"])


# --- what a run starts from, and what it stores


@pytest.mark.parametrize("output", [str, Word])
async def test_each_run_starts_from_those_before_it_and_stores_its_own(
    app: Durably, talker: Talker, output: Any
) -> None:
    app.register(Agent(talker.model, name="t", output_type=output, instructions="Be brief."))
    line = [await app.enqueue("t", p, thread=T) for p in ("one", "two", "three")]
    assert [run.state for run in line] == ["available", "suspended", "suspended"]
    assert await app.drain() == 3
    ends = {str: ["1"], Word: ["call final_result", "return Final result processed."]}
    for number, run in enumerate(line, start=1):
        assert (await run.refresh()).output() == (
            f"{number}" if output is str else Word(word=f"{number}")
        )
        end = [f"{number}"] if output is str else ends[Word]
        prompt = ("one", "two", "three")[number - 1]
        assert await own(run) == [prompt, *end]
        (first, *_) = await run.history()
        assert isinstance(first, ModelRequest)
        assert first.instructions == "Be brief."
    whole = [text for run in line for text in await own(run)]
    assert said(await app.conversation(T)) == whole
    assert said(talker.seen[-1]) == whole[: -len(ends[output])]


@pytest.mark.parametrize("crash", ["before", "after"])
@pytest.mark.parametrize("output", [str, Word])
async def test_attempt_that_dies_goes_on_where_it_was(
    app: Durably, talker: Talker, output: Any, crash: str
) -> None:
    """Its worker dies before its first response is saved, or with a tool call under way."""
    log: list[str] = []
    talker.scripts["two"] = [[call("work")], "2"]
    agent = Agent(talker.model, name="t", output_type=output, instructions="Be brief.")

    @agent.tool_plain(metadata=effects.IDEMPOTENT)
    def work() -> str:
        log.append("work")
        if crash == "after" and len(log) == 1:
            raise RuntimeError("the worker died")
        return "done"

    app.register(agent, retry=NOW)
    if crash == "before":
        died = iter([RuntimeError("the worker died")])

        def die(prompt: str) -> None:
            if prompt == "two" and (error := next(died, None)):
                raise error

        talker.before = die
    await app.enqueue("t", "one", thread=T)
    run = await app.enqueue("t", "two", thread=T)
    await app.drain()
    assert (await run.refresh()).state is RunState.COMPLETED
    assert run.record.attempt == 2
    end = ["2"] if output is str else ["call final_result", "return Final result processed."]
    assert await own(run) == ["two", "call work", "return done", *end]
    requests = [m for m in await run.history() if isinstance(m, ModelRequest)]
    assert said([requests[0]]) == ["two"]
    # Paid for once: one for the first run, then each step of the second, and what died.
    assert len(talker.seen) == 3 + (crash == "before")


async def test_run_handed_back_after_its_first_response_replays_it_in_its_thread(
    app: Durably, talker: Talker
) -> None:
    """The last response is the run's own; those of the thread before it are not handed out."""
    app.register(Agent(talker.model, name="t", output_type=Word))
    await app.enqueue("t", "one", thread=T)
    await app.drain()
    run = await app.enqueue("t", "two", thread=T)
    async with app.worker() as worker:

        def leave(prompt: str) -> None:
            worker._attempts.leave()  # pyright: ignore[reportPrivateUsage]

        talker.before = leave

        async def handed_back() -> bool:
            return "handed_back" in [event.kind for event in await run.events()]

        await until(handed_back, "the worker gave it back")
    requests = len(talker.seen)
    talker.before = lambda _: None
    await app.drain()
    assert await run.result(timeout=60) == Word(word="2")
    assert len(talker.seen) == requests, "the response was paid for"
    assert await own(run) == ["two", "call final_result", "return Final result processed."]


async def test_agents_may_change_within_a_thread(app: Durably, talker: Talker) -> None:
    app.register(Agent(talker.model, name="a", output_type=Word, instructions="A"))
    app.register(Agent(talker.model, name="b", instructions="B"), on_change="discard")
    for agent, prompt in (("a", "one"), ("b", "two"), ("a", "three")):
        await app.enqueue(agent, prompt, thread=T)
    await app.drain()
    states = {run.state for run in await app.runs(thread=T)}
    assert states == {RunState.COMPLETED}, "another agent is no change of this one"
    requests = [m for m in await app.conversation(T) if isinstance(m, ModelRequest)]
    assert [m.instructions for m in requests if "Final" not in str(m.parts)] == ["A", "B", "A"]


async def test_agent_changed_in_the_middle_of_a_threads_run_is_noticed(
    app: Durably, talker: Talker
) -> None:
    talker.scripts["two"] = [[call("work")], RuntimeError("deploy now")]

    def work() -> str:
        return "done"

    def make(instructions: str) -> Agent[None, str]:
        agent = Agent(talker.model, name="t", instructions=instructions)
        agent.tool_plain(metadata=effects.READ)(work)
        return agent

    app.register(make("First."), retry=RetryPolicy(initial_seconds=3600, max_seconds=3600))
    await app.enqueue("t", "one", thread=T)
    run = await app.enqueue("t", "two", thread=T)
    await app.drain()
    await run.cancel()  # Its backoff is long: an operator lets it go on now.
    await run.retry()
    async with Durably(app.settings.url) as other:
        other.register(make("Second."), retry=NOW, on_change="suspend")
        waiting = await other.enqueue("t", "three", thread=T)
        await other.drain()
        assert ((await run.refresh()).record.waiting_on or {})["kind"] == "change"
        assert (await waiting.refresh()).record.in_line
        talker.scripts["two"][1] = "2"
        await run.retry()
        await other.drain()
        assert [r.output() for r in (await run.refresh(), await waiting.refresh())] == ["2", "3"]


async def test_response_that_was_turned_down_is_stored_once(app: Durably, talker: Talker) -> None:
    talker.scripts["two"] = ["no", "2"]
    agent = Agent(talker.model, name="t")

    @agent.output_validator
    def check(text: str) -> str:
        if text == "no":
            raise ModelRetry("Say yes.")
        return text

    app.register(agent, retry=NOW)
    runs_ = [await app.enqueue("t", p, thread=T) for p in ("one", "two", "three")]
    await app.drain()
    assert [run.output() for run in [await r.refresh() for r in runs_]] == ["1", "2", "3"]
    own_ = await own(runs_[1])
    assert (own_[:2], own_[-1], len(own_)) == (["two", "no"], "2", 4)


# --- system prompts


async def test_system_prompt_stands_at_the_head_of_the_conversation_once(
    app: Durably, talker: Talker
) -> None:
    app.register(Agent(talker.model, name="t", system_prompt="SYSTEM"))
    for prompt in ("one", "two", "three"):
        await app.enqueue("t", prompt, thread=T)
    await app.drain()
    assert said(talker.seen[-1]) == ["SYSTEM", "one", "1", "two", "2", "three"]


@pytest.mark.parametrize("first", ["silent", "another agent"])
async def test_system_prompt_is_there_though_the_thread_began_without(
    app: Durably, talker: Talker, first: str
) -> None:
    if first == "silent":
        talker.scripts["one"] = [ConfigError("no")]
        app.register(Agent(talker.model, name="plain"), max_attempts=1)
    else:
        app.register(Agent(talker.model, name="plain"))
    app.register(Agent(talker.model, name="t", system_prompt="SYSTEM"))
    await app.enqueue("plain", "one", thread=T)
    runs_ = [await app.enqueue("t", prompt, thread=T) for prompt in ("two", "three")]
    await app.drain()
    for sent in talker.seen[1:]:
        assert said(sent).count("SYSTEM") == 1
    for run, prompt in zip(runs_, ("two", "three"), strict=True):
        assert (await run.refresh()).state is RunState.COMPLETED
        assert (await own(run))[-2] == prompt
        assert "one" not in await own(run), "that is the first run's"


# --- how an earlier run may have ended

SUSPICIOUS = "It may have happened"


class Shop:
    """An agent whose run ends in the middle of its calls, in whatever way a test needs."""

    def __init__(self, app: Durably, talker: Talker) -> None:
        self.app = app
        self.broken = True
        agent = Agent(talker.model, name="shop")

        @agent.tool_plain(metadata=effects.once(on_doubt="ask"))
        def charge() -> str:
            if self.broken:
                raise RuntimeError("the network is gone")
            return "charged"

        @agent.tool_plain(metadata=effects.once())
        def pack() -> ToolReturn:
            return ToolReturn(return_value="packed", content=["See the box."], metadata={"n": 1})

        @agent.tool_plain(metadata=effects.once(approve=True))
        def ship() -> str:
            return "shipped"

        @agent.tool_plain(metadata=effects.once())
        def measure() -> str:
            raise ModelRetry("Give a unit.")

        app.register(agent, retry=NOW)


async def test_calls_of_a_cancelled_run_are_answered_by_what_is_recorded(
    app: Durably, talker: Talker
) -> None:
    """All with the same id, as some providers have it."""
    talker.scripts["one"] = [[call(n, f"c{i}") for i, n in enumerate(("charge", "pack", "ship"))]]
    Shop(app, talker)
    first = await app.enqueue("shop", "one", thread=T)
    second = await app.enqueue("shop", "two", thread=T)
    await app.drain()
    assert (await first.refresh()).state is RunState.SUSPENDED
    await first.cancel()
    await app.drain()
    assert (await second.refresh()).output() == "2"
    sent = said(talker.seen[-1])
    assert sent[:4] == ["one", "call charge", "call pack", "call ship"]
    assert SUSPICIOUS in sent[4]
    assert sent[5] == "return packed"
    assert "did not happen" in sent[6]
    assert sent[7:] == ["['See the box.']", "two"]
    assert len(await first.history()) == 2, "nothing was stored for it"
    assert await own(second) == ["two", "2"]


async def test_call_that_waited_for_a_person_did_not_happen(app: Durably, talker: Talker) -> None:
    talker.scripts["one"] = [[call("ship"), call("pack", "call_1")]]
    Shop(app, talker)
    first = await app.enqueue("shop", "one", thread=T)
    await app.drain()
    await app.enqueue("shop", "two", thread=T, on_busy="interrupt")
    await app.drain()
    sent = said(talker.seen[-1])
    # Versions of pydantic-ai differ in the order of a message's answers.
    assert sorted(sent[3:5]) == [
        f"return This call did not happen: run '{first.key}' was cancelled while it waited.",
        "return packed",
    ]


async def test_what_people_decided_about_a_call_is_told(app: Durably, talker: Talker) -> None:
    talker.scripts["one"] = [[call("measure", "a"), call("ship", "b")]]
    talker.scripts["two"] = [[call("charge", "a")]]
    Shop(app, talker)
    first = await app.enqueue("shop", "one", thread=T)
    await app.drain()
    await first.deny("1.1", reason="Not today.")
    await first.cancel()
    second = await app.enqueue("shop", "two", thread=T)
    await app.drain()
    await second.resolve("1.0", done="charged by hand")
    await second.cancel()
    await app.enqueue("shop", "three", thread=T)
    await app.drain()
    told = [p for m in talker.seen[-1] for p in m.parts if isinstance(p, ToolReturnPart)]
    assert [(p.tool_call_id, p.content, p.outcome) for p in told] == [
        ("a", "Give a unit.", "failed"),
        ("b", "Not today.", "denied"),
        ("a", "charged by hand", "success"),
    ]


async def test_run_cancelled_in_the_middle_of_a_call_leaves_it_in_doubt_for_the_next(
    app: Durably, talker: Talker
) -> None:
    talker.scripts["one"] = [[call("slow", "call_0")]]
    agent = Agent(talker.model, name="t")
    begun = asyncio.Event()

    @agent.tool_plain(metadata=effects.once())
    async def slow() -> str:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    app.register(agent)
    first = await app.enqueue("t", "one", thread=T)
    async with app.worker():
        await asyncio.wait_for(begun.wait(), 60)
        second = await app.enqueue("t", "two", thread=T, on_busy="interrupt")
        assert await second.result(timeout=60) == "2"
    assert (await first.refresh()).state is RunState.CANCELLED
    (requested,) = [e for e in await first.events() if e.kind == "cancel_requested"]
    assert requested.data["by"] == "interrupt"
    sent = said(talker.seen[-1])
    assert (sent[:2], sent[-1]) == (["one", "call slow"], "two")
    assert SUSPICIOUS in sent[2]


async def test_call_that_nothing_is_recorded_of_is_answered_too(
    app: Durably, talker: Talker
) -> None:
    talker.scripts["one"] = [[call("gone", "call_0"), call("read", "call_1")]]
    agent = Agent(talker.model, name="t")

    @agent.tool_plain(metadata=effects.READ)
    def read() -> str:
        raise ConfigError("not configured")

    app.register(agent, max_attempts=1)
    first = await app.enqueue("t", "one", thread=T)
    await app.enqueue("t", "two", thread=T)
    await app.drain()
    assert (await first.refresh()).state is RunState.DISCARDED
    sent = said(talker.seen[-1])
    assert sent[-1] == "two"
    assert any("has no result" in text and "discarded" in text for text in sent)


@pytest.mark.parametrize("began", [True, False])
async def test_prompt_without_an_answer_is_seen_if_its_run_began(
    app: Durably, talker: Talker, began: bool
) -> None:
    talker.scripts["one"] = [ConfigError("no model")]
    app.register(Agent(talker.model, name="t"), max_attempts=1)
    first = await app.enqueue("t", "one", thread=T)
    if not began:
        await first.cancel()
    second = await app.enqueue("t", "two", thread=T)
    await app.drain()
    assert (await second.refresh()).output() == "2"
    assert said(talker.seen[-1]) == (["one", "two"] if began else ["two"])
    assert await own(second) == ["two", "2"]


async def test_output_that_was_never_accepted_does_not_stop_the_thread(
    app: Durably, talker: Talker
) -> None:
    talker.scripts["one"] = ["bad"]
    agent = Agent(talker.model, name="t", output_type=Word)

    @agent.output_validator
    def check(word: Word) -> Word:
        if word.word == "bad":
            raise ModelRetry("Another word.")
        return word

    app.register(agent, max_attempts=1)
    first = await app.enqueue("t", "one", thread=T)
    second = await app.enqueue("t", "two", thread=T)
    await app.drain()
    assert (await first.refresh()).state is RunState.DISCARDED
    assert (await second.refresh()).output() == Word(word="2")


# --- while a run is going


class Desk:
    """A clerk whose tool can be held up, in a thread; the model says what it was told last."""

    def __init__(self, app: Durably) -> None:
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.seen: list[list[ModelMessage]] = []
        agent = Agent(FunctionModel(self._answer), name="clerk")

        @agent.tool_plain(metadata=effects.READ)
        async def look() -> str:
            self.begun.set()
            await self.gate.wait()
            return "looked"

        app.register(agent, retry=NOW)

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        check_as_a_provider_does(messages)
        self.seen.append(list(messages))
        last = said(messages[-1:])
        if last == ["look"]:
            return ModelResponse(parts=[ToolCallPart("look", {}, "call_0")])
        return ModelResponse(parts=[TextPart(f"heard {' and '.join(last)}")])


async def test_message_that_steers_is_seen_before_the_next_request(app: Durably) -> None:
    desk = Desk(app)
    async with app.worker():
        going = await app.enqueue("clerk", "look", thread=T)
        await asyncio.wait_for(desk.begun.wait(), 60)
        message = await app.enqueue("clerk", "left!", thread=T, on_busy="steer")
        assert (await message.refresh()).record.in_line
        assert "to see its message" in message.describe_waiting()
        desk.gate.set()
        assert await going.result(timeout=60) == "heard return looked and left!"
        assert await message.result(timeout=60) == "heard return looked and left!"
        after = await app.enqueue("clerk", "next", thread=T)
        await after.result(timeout=60)
    assert (message.record.attempt, await message.history()) == (0, [])
    whole = ["look", "call look", "return looked", "left!", "heard return looked and left!"]
    assert await own(going) == whole
    assert said(desk.seen[-1]) == [*whole, "next"], "once, in the run that saw it"


async def test_message_that_steers_survives_a_crash_of_the_run_that_saw_it(app: Durably) -> None:
    """Also of the attempt that has shown it to the model, and not saved the answer."""
    desk = Desk(app)
    fails = iter([True, False])
    answer = desk._answer  # pyright: ignore[reportPrivateUsage]

    def failing(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if "left!" in said(messages) and next(fails, False):
            raise RuntimeError("the worker died")
        return answer(messages, info)

    agent = Agent(FunctionModel(failing), name="failing")

    @agent.tool_plain(metadata=effects.READ)
    async def look() -> str:
        await app.enqueue("failing", "left!", key="m", thread=T, on_busy="steer")
        return "looked"

    app.register(agent, retry=NOW)
    going = await app.enqueue("failing", "look", thread=T)
    await app.drain()
    assert (await going.refresh()).record.attempt == 2
    message = await app.get("m")
    assert message.output() == going.output() == "heard return looked and left!"
    assert (await own(going)).count("left!") == 1


async def test_message_that_nobody_saw_in_time_is_the_next_run(
    app: Durably, talker: Talker
) -> None:
    app.register(Agent(talker.model, name="t"))
    first = await app.enqueue("t", "one", thread=T)

    async def enqueue_late(prompt: str) -> None:
        if prompt == "one":
            await app.enqueue("t", "two", key="late", thread=T, on_busy="steer")

    talker.before = enqueue_late
    await app.drain()
    late = await app.get("late")
    assert (late.output(), late.record.attempt) == ("2", 1)
    assert await own(first) == ["one", "1"]
    assert said(talker.seen[-1]) == ["one", "1", "two"]


async def test_interruption_asked_for_in_somebodys_own_transaction_is_carried_out(
    app: Durably, talker: Talker
) -> None:
    """By maintenance: as for an application that dies right after it has stored the run."""
    app.register(Agent(talker.model, name="t"))
    first = await app.enqueue("t", "one", thread=T, delay=3600)
    url = app.settings.url
    with closing(
        sqlite3.connect(url.removeprefix("sqlite:///")) if "sqlite" in url else psycopg.connect(url)
    ) as conn:
        if isinstance(conn, sqlite3.Connection):
            conn.execute("BEGIN")
        second = await app.enqueue("t", "two", thread=T, on_busy="interrupt", conn=conn)
        message = await app.enqueue("t", "three", thread=T, on_busy="steer", conn=conn)
        with pytest.raises(ThreadBusy):
            await app.enqueue("t", "four", thread=T, on_busy="reject", conn=conn)
        conn.commit()
    assert (await first.refresh()).state is RunState.SCHEDULED
    async with app.worker():
        assert await second.result(timeout=60) == "3", "the run that is going sees the message"
        assert await message.result(timeout=60) == "3"
    assert (await first.refresh()).state is RunState.CANCELLED
    assert (await first.events())[-1].data["by"] == "interrupt"


async def test_busy_thread_refuses_and_stores_nothing(app: Durably, talker: Talker) -> None:
    app.register(Agent(talker.model, name="t"))
    first = await app.enqueue("t", "one", key="first", thread=T, on_busy="reject")
    with pytest.raises(ThreadBusy, match="Thread 'customer-7' is busy: its run 'first'"):
        await app.enqueue("t", "two", key="second", thread=T, on_busy="reject")
    assert [run.key for run in await app.runs(thread=T)] == ["first"]
    same = await app.enqueue("t", "one", key="first", thread=T, on_busy="reject")
    assert same.record == first.record


async def test_key_of_another_thread_is_a_conflict(app: Durably, talker: Talker) -> None:
    app.register(Agent(talker.model, name="t"))
    await app.enqueue("t", "one", key="k", thread=T)
    for thread in ("another", None):
        with pytest.raises(KeyConflict, match="another thread"):
            await app.enqueue("t", "one", key="k", thread=thread)


@ON_SQLITE
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"on_busy": "steer"}, "on_busy='steer' is about a thread's other runs: give thread= too."),
        ({"thread": T, "on_busy": "wait"}, "on_busy='wait': use one of: queue, reject, inter"),
        ({"thread": " "}, "The thread is empty."),
        ({"thread": "a\0"}, "holds what no database can store"),
    ],
)
async def test_options_that_cannot_be_are_refused(
    app: Durably, talker: Talker, options: dict[str, Any], sentence: str
) -> None:
    app.register(Agent(talker.model, name="t"))
    with pytest.raises(ConfigError) as refused:
        await app.enqueue("t", "one", **options)
    assert sentence in str(refused.value)


async def test_script_waits_for_its_turn(app: Durably, talker: Talker) -> None:
    agent = Agent(talker.model, name="t")
    app.register(agent)
    await app.enqueue("t", "one", thread=T, queue="slow")
    script = asyncio.create_task(app.run(agent, "two", key="mine", thread=T))

    async def in_line() -> bool:
        found = await app.runs(thread=T)
        return len(found) == 2 and found[0].record.in_line

    await until(in_line, "it waits")
    assert talker.seen == [], "it executes nobody else's run"
    await app.drain({"slow": 1})
    assert await asyncio.wait_for(script, 60) == "2"


async def test_waiting_for_a_turn_is_waiting_for_no_decision(app: Durably, talker: Talker) -> None:
    app.register(Agent(talker.model, name="t"))
    await app.enqueue("t", "one", key="first", thread=T)
    second = await app.enqueue("t", "two", key="second", thread=T)
    assert second.describe_waiting() == (
        "Run 'second' waits for its turn in thread 'customer-7', after run 'first'."
    )
    assert await app.inbox() == []
    waiting = asyncio.create_task(second.result(timeout=60, wait_suspended=False))
    await app.drain()
    assert await waiting == "2"


async def test_operators_retry_keeps_the_order(app: Durably, talker: Talker) -> None:
    talker.scripts["one"] = [ConfigError("no"), "1"]
    app.register(Agent(talker.model, name="t"), max_attempts=1)
    first = await app.enqueue("t", "one", thread=T)
    await app.drain()
    talker.scripts["one"] = ["1"]
    await first.retry()
    second = await app.enqueue("t", "two", thread=T)
    await app.drain()
    assert [r.output() for r in (await first.refresh(), await second.refresh())] == ["1", "2"]
    assert said(talker.seen[-1]) == ["one", "1", "two"]
    with pytest.raises(TransitionRefused):
        await first.retry()


async def test_cancelled_message_in_line_is_not_seen(app: Durably, talker: Talker) -> None:
    app.register(Agent(talker.model, name="t"))
    await app.enqueue("t", "one", thread=T)
    second = await app.enqueue("t", "two", thread=T)
    third = await app.enqueue("t", "three", thread=T)
    await second.cancel()
    await app.drain()
    with pytest.raises(RunCancelled):
        second.output()
    assert (await third.refresh()).output() == "3"
    assert said(talker.seen[-1]) == ["one", "1", "three"]
