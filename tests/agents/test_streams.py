"""What a run says is seen while it says it, until the message itself is there."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterable, Iterator
from typing import Any

import pytest
from pydantic_ai import Agent, RunContext
from pydantic_ai.capabilities import ProcessEventStream
from pydantic_ai.messages import AgentStreamEvent

from durably import Durably, Event, Run, RunState, effects, run_child
from support.ledgers import PATIENCE_SECONDS
from support.scripted import NOW, Script, call
from support.spoken import Onlooker, Piece, Spoken, call_piece, thought


async def settled(app: Durably, *others: Any) -> None:
    """Work until nothing is due, and let those who watch it see its end."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(app.drain(), *others)


def facts(events: list[Event]) -> list[int]:
    return [event.id for event in events if event.kind != "delta"]


async def test_message_is_seen_while_it_is_made(app: Durably) -> None:
    eye = Onlooker()
    seen: list[Any] = []

    def args_so_far(draft: Any) -> bool:
        seen[:] = draft.parts
        return bool(draft.parts) and getattr(draft.parts[-1], "args", None) == '{"number": '

    model = Spoken(
        [
            thought("An order, "),
            thought("so look."),
            eye.sees(lambda d: d.thinking == "An order, so look."),
            call_piece("find_order", '{"number": '),
            eye.sees(args_so_far),
            call_piece(None, "42}"),
        ],
        [
            eye.sees(lambda d: [r.content for r in d.results] == ["two lamps"]),
            "Order 42: ",
            eye.sees(lambda d: d.text == "Order 42: " and not d.running),
            "two ",
            "lamps.",
            eye.sees(lambda d: d.text == "Order 42: two lamps."),
        ],
    )
    agent = Agent(model.model, name="support")

    @agent.tool_plain(metadata=effects.READ)
    def find_order(number: int) -> str:
        return "two lamps"

    app.register(agent, stream=True)
    run = await app.enqueue(agent, "What is in order 42?")
    await settled(app, eye.watch(run))

    assert [part.part_kind for part in seen] == ["thinking", "tool-call"]
    assert await run.result() == "Order 42: two lamps."
    assert eye.texts[-1] == "" and "Order 42: " in eye.texts
    assert (eye.draft.parts, eye.draft.results, eye.draft.message) == ([], [], None)
    before, after = ["enqueued", "claimed", "delta", "step"], ["delta", "effect", "step"]
    assert eye.kinds == [*before, *after, "completed"]
    messages = {event.data["message"] for event in eye.events if event.kind == "delta"}
    assert messages == {1, 2, 3}
    assert [event.id for event in await run.events()] == facts(eye.events), "all deltas are gone"


async def test_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice(app: Durably) -> None:
    """At every event: one leaves, and another goes on from there with what the first had seen."""
    first, later = Onlooker(), list[tuple[int, Onlooker]]()
    model = Spoken(
        [call_piece("look", "{}"), first.sees(lambda d: d.parts)],
        [
            first.sees(lambda d: d.results),
            "one, ",
            first.sees(lambda d: d.text == "one, "),
            "two, ",
            first.sees(lambda d: d.text == "one, two, "),
            ValueError("the stream broke"),
        ],
        [
            "one, ",
            first.sees(lambda d: d.text == "one, "),
            "three",
            first.sees(lambda d: "three" in d.text),
        ],
    )
    agent = Agent(model.model, name="counter")

    @agent.tool_plain
    def look() -> str:
        return "seen"

    app.register(agent, stream=True, retry=NOW)
    run = await app.enqueue(agent, "Count.", key="count")

    async with asyncio.TaskGroup() as watchers:

        async def watch() -> None:
            async for event in run.watch():
                await first.take(event)
                other = Onlooker(copy.deepcopy(first.draft))
                later.append((event.id, other))
                watchers.create_task(other.watch(await app.get("count"), after=event.id))

        await settled(app, watch())

    assert model.requests == [0, 1, 1], "what is in the ledger was not asked for again"
    known = await run.events()
    assert facts(first.events) == [event.id for event in known]
    assert "withdrawn" in first.kinds and len(later) > 12
    seen = {event.id: event for event in first.events}
    assert [event.id for event in first.events] == sorted(seen)
    assert sorted(unsaid(first.events)) == [2, 3], "withdrawn; all else came where it was said"
    for cut, other in later:
        came = [event.id for event in other.events]
        assert facts(other.events) == [event.id for event in known if event.id > cut], cut
        assert came == sorted(set(came))
        for event in other.events:
            # A piece may be gone, as its message is there, before the one or the other looks.
            assert event == seen.get(event.id, event) and (event.kind == "delta" or event in known)
        assert (other.draft.parts, other.draft.results) == ([], [])
        assert [event.id async for event in run.watch(after=cut)] == facts(other.events)


@pytest.mark.parametrize("how", ["fails", "is cancelled", "takes too long", "is handed back"])
async def test_half_a_message_is_withdrawn_with_its_attempt(app: Durably, how: str) -> None:
    eye, for_ever = Onlooker(), asyncio.Event()
    broken: Piece = ValueError("the stream broke") if how == "fails" else for_ever.wait
    half: list[Piece] = ["Half a ", "message", eye.sees(lambda d: d.text == "Half a message")]
    model = Spoken([*half, broken], ["The whole."])
    agent = Agent(model.model, name="speaker")
    timeout = 0.5 if how == "takes too long" else None
    app.register(agent, stream=True, retry=NOW, timeout=timeout)
    run = await app.enqueue(agent, "Speak.")
    watching = asyncio.create_task(eye.watch(run))
    if how == "is handed back":
        async with app.worker(grace=0.0):
            await eye.sees(lambda d: d.text == "Half a message")()
    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        if how == "is cancelled":
            await_half = eye.sees(lambda d: d.text == "Half a message")
            group.create_task(after(await_half, run.cancel))
        async with app.worker():
            await watching

    withdrawn = next(event for event in eye.events if event.kind == "withdrawn")
    assert (withdrawn.attempt, withdrawn.data) == (1, {"message": 1})
    ends = {"fails": "failed", "takes too long": "failed", "is cancelled": "cancelled"}
    kinds = [event.kind for event in eye.events]
    assert kinds[kinds.index("withdrawn") + 1] == ends.get(how, "handed_back")
    assert eye.draft.text == "" and "Half a message" in eye.texts
    assert not any(event.kind == "delta" for event in await run.events())
    if how == "is cancelled":
        assert await run.history() == []
    else:
        assert await run.result() == "The whole."


async def test_results_are_withdrawn_when_others_are_waited_for(app: Durably) -> None:
    """A run that is suspended shows nothing in the making; what it knows is in its effects."""
    eye = Onlooker()
    model = Spoken(
        [call_piece("look", "{}"), call_piece("pay", "{}", index=2)],
        [eye.sees(lambda d: len(d.results) == 2), "Paid."],
    )
    agent = Agent(model.model, name="payer")

    @agent.tool_plain
    def look() -> str:
        return "seen"

    @agent.tool_plain(requires_approval=True)
    def pay() -> str:
        return "paid"

    app.register(agent, stream=True)
    run = await app.enqueue(agent, "Pay.")
    watching = asyncio.create_task(eye.watch(run))
    await settled(app)
    assert (await run.refresh()).state is RunState.SUSPENDED
    assert not any(event.kind == "delta" for event in await run.events())
    await run.approve("1.1")
    await settled(app, watching)
    assert await run.result() == "Paid."
    assert model.requests == [0, 1], "the response that is handed back was not asked for"
    of_first = [e for e in eye.events if e.kind == "delta" and e.data["message"] == 1]
    assert {event.attempt for event in of_first} <= {1}, "nor is it shown again"


async def test_handler_of_the_agent_gets_its_own_events_too(app: Durably) -> None:
    eye, handled = Onlooker(), list[str]()

    async def handler(_: RunContext[None], events: AsyncIterable[AgentStreamEvent]) -> None:
        async for event in events:
            handled.append(event.event_kind)

    model = Spoken(["Hello", eye.sees(lambda d: d.text == "Hello"), " you."])
    agent = Agent(model.model, name="greeter", capabilities=[ProcessEventStream(handler)])
    run = await app.enqueue(agent, "Hi.", stream=True)
    await settled(app, eye.watch(run))
    assert "Hello" in eye.texts
    assert handled[0] == "part_start" and handled[-1] == "part_end"


async def test_run_says_for_itself_and_its_children_whether_it_streams(app: Durably) -> None:
    """Who does not stream asks its model for whole responses, and writes what it always did."""
    script = Script("quiet", "quiet", "quiet")
    agent = Agent(script.model, name="quiet")  # It could not stream.
    app.register(agent, stream=True)
    run = await app.enqueue(agent, "Hush.", stream=False)
    assert run.record.stream is False
    await settled(app)
    assert [e.kind for e in await run.events()] == ["enqueued", "claimed", "step", "completed"]

    eye = Onlooker()
    loud = Agent(Spoken(["La ", eye.sees(lambda d: d.text == "La "), "la."]).model, name="loud")
    parent = Agent(Script([call("sing")], "Sung.").model, name="parent")

    @parent.tool_plain(metadata=effects.WAITS)
    async def sing() -> str:
        return await run_child("loud", "Sing.", key="song", stream=True)

    app.register(loud)
    run = await app.enqueue(parent, "Have it sung.")
    assert run.record.stream is None
    async with app.worker(), asyncio.timeout(PATIENCE_SECONDS):
        await kinds_of(run, "suspended")
        song = await app.get("song")
        assert song.record.stream is True
        await eye.watch(song)
        assert "La " in eye.texts and await run.result() == "Sung."


def unsaid(events: list[Event]) -> Iterator[int]:
    """The positions that deltas named, and no step after them did."""
    open_positions = set[int]()
    for event in events:
        if event.kind == "delta":
            open_positions.add(event.data["message"])
        elif event.kind in ("step", "withdrawn", "completed"):
            yield from open_positions - set(event.data.get("messages", ()))
            open_positions.clear()


async def kinds_of(run: Run[Any], last: str) -> list[str]:
    """The kinds of a run's events until there is one of this kind."""
    found: list[str] = []
    async for event in run.watch():
        found.append(event.kind)
        if event.kind == last:
            break
    return found


async def after(condition: Any, act: Any) -> None:
    await condition()
    await act()
