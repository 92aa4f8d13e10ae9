"""Connections that are cut at a COMMIT: nobody hears whether it was committed, and nothing differs.

The network between driver and server is real, and cuts at the commit of one chosen write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.exceptions import ModelHTTPError

from durably import Durably, NotDone, Run, RunCancelled, current_call, effects
from durably.execution import soon
from support.databases import sql
from support.ledgers import until
from support.scripted import NOW, Script, call
from support.wire import Cut, Network, Strike

# What a transaction looks like to the server, by what is written in it.
LOAD = "SELECT .* FROM .*durably_messages WHERE run_id = .* ORDER BY seq"
CHECKPOINT = "INSERT INTO .*durably_messages"
STEP = "SET usage = "
INTENT = "INSERT INTO .*durably_effects.*'started'"
OUTCOME = r"INSERT INTO .*durably_effects.*NOT IN \('done'"
DOUBT = "SET state = 'in_doubt', asked"
WITHDRAWAL = "DELETE FROM .*durably_effects"
COMPLETE = "SET state = 'completed'"
FAIL = "ELSE 'retryable' END"
DISCARD = "SET state = 'discarded', failures"
SUSPEND = "'suspended' ELSE 'cancelled'"
HAND_BACK = "'available' ELSE 'cancelled'"
STOP = "SET state = 'cancelled', worker_id"
CLAIM = "SET state = 'executing'"


@pytest.fixture
def network(empty_url: str) -> Iterator[Network]:
    sql(empty_url, "CREATE TABLE books (n INTEGER)")
    with Network(empty_url) as network:
        yield network


# --- agents, and how they are executed


@dataclass
class Stage:
    """What an agent and whoever has it executed share."""

    acted: list[str] = field(default_factory=list[str])
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


type Make = Callable[[Stage], Agent[None, str]]
type Live = Callable[[Durably, Run[Any], Stage], Awaitable[object]]


def acts(metadata: Any, *errors: Exception) -> Make:
    """With a tool that acts, and then raises as often as there are errors."""

    def make(stage: Stage) -> Agent[None, str]:
        agent = Agent(Script([call("act")], "done", "done").model, name="agent")
        left = list(errors)

        @agent.tool_plain(metadata=metadata)
        def act() -> str:
            stage.acted.append("acted")
            if left:
                raise left.pop(0)
            return "acted"

        return agent

    return make


def asks(stage: Stage) -> Agent[None, str]:
    """With a tool that a person has to approve."""
    agent = Agent(Script([call("act")], "done").model, name="agent")

    @agent.tool_plain(requires_approval=True)
    def act() -> str:
        return "never"

    return agent


def waits(stage: Stage) -> Agent[None, str]:
    """With a tool that waits, and may be left alone or stopped meanwhile."""
    agent = Agent(Script([call("act")], "done").model, name="agent")

    @agent.tool_plain(metadata=effects.READ)
    async def act() -> str:
        stage.started.set()
        await stage.go_on.wait()
        return "acted"

    return agent


def refused(stage: Stage) -> Agent[None, str]:
    """With a model that cannot be used at all."""
    return Agent(Script(ModelHTTPError(400, "model", None)).model, name="agent")


def books(stage: Stage) -> Agent[None, str]:
    """With a tool that writes in a transaction, in a thread."""
    agent = Agent(Script([call("book")], "done").model, name="agent")

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    def book() -> str:
        with current_call().transaction() as connection:
            connection.execute("INSERT INTO books VALUES (1)")
        return "booked"

    return agent


def books_async(stage: Stage) -> Agent[None, str]:
    """With a tool that writes in a transaction, on the event loop."""
    agent = Agent(Script([call("book")], "done").model, name="agent")

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    async def book() -> str:
        async with current_call().transaction() as connection:
            await connection.execute("INSERT INTO books VALUES (1)")
        return "booked"

    return agent


async def drain(app: Durably, run: Run[Any], stage: Stage) -> None:
    await app.drain()


async def leave_and_return(app: Durably, run: Run[Any], stage: Stage) -> None:
    async with app.worker() as worker:
        await stage.started.wait()
        leaving = asyncio.create_task(worker.stop())
        await until(lambda: worker.leaving, "it leaves")
        stage.go_on.set()
        await leaving
    await app.drain()


async def cancel(app: Durably, run: Run[Any], stage: Stage) -> None:
    async with app.worker():
        await stage.started.wait()
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result(timeout=120)


# --- what becomes of a run


@asynccontextmanager
async def lived(
    url: str, key: str, make: Make, live: Live = drain, **options: Any
) -> AsyncIterator[tuple[Run[Any], dict[str, Any]]]:
    """A run that has lived, and all that can be told of it but for what any two differ in."""
    stage = Stage()
    agent = make(stage)
    async with Durably(url) as app:
        app.register(agent, retry=NOW, **options)
        run = await app.enqueue(agent, "hi", key=key)
        await live(app, run, stage)
        yield run, {"acted": stage.acted, **await story(run)}


async def story(run: Run[Any]) -> dict[str, Any]:
    record = (await run.refresh()).record
    return {
        "run": (record.state, record.output, record.error, record.failures, record.crashes),
        "messages": [(m.seq, m.kind, m.attempt) for m in await run.messages()],
        "effects": [
            (e.call_id, e.state, e.asked, e.attempt, e.result, e.error) for e in await run.effects()
        ],
        "attempts": [(a.attempt, a.outcome, a.error) for a in await run.attempts()],
        "events": [(e.kind, e.attempt, _steady(e.data)) for e in await run.events()],
    }


def _steady(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in ("worker", "retry_at")}


@pytest.fixture(autouse=True)
def model_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result is written by itself, as it is where the next response takes longer than that."""
    monkeypatch.setattr(soon, "SOON_SECONDS", 0.0)


WRITES: dict[str, tuple[Make, Live, str, int]] = {
    "a checkpoint": (acts(effects.READ), drain, CHECKPOINT, 0),
    "a later checkpoint": (acts(effects.READ), drain, CHECKPOINT, 1),
    "a result in the background": (acts(effects.IDEMPOTENT), drain, STEP, 1),
    "an intent": (acts(effects.once()), drain, INTENT, 0),
    "a result": (acts(effects.once()), drain, OUTCOME, 0),
    "an answer": (acts(effects.once(), ModelRetry("no")), drain, OUTCOME, 0),
    "a doubt": (acts(effects.once(), RuntimeError("?")), drain, OUTCOME, 0),
    "a question": (acts(effects.once(), RuntimeError("?")), drain, DOUBT, 0),
    "a doubt that the model is told": (
        acts(effects.once(on_doubt="tell"), RuntimeError("?")),
        drain,
        DOUBT,
        0,
    ),
    "an intent that is withdrawn": (acts(effects.once(), NotDone("no")), drain, WITHDRAWAL, 0),
    "completing": (acts(effects.READ), drain, COMPLETE, 0),
    "failing": (acts(effects.READ, RuntimeError("boom")), drain, FAIL, 0),
    "discarding": (refused, drain, DISCARD, 0),
    "suspending": (asks, drain, SUSPEND, 0),
    "handing back": (waits, leave_and_return, HAND_BACK, 0),
    "stopping": (waits, cancel, STOP, 0),
}

TRANSACTIONS: dict[str, tuple[Make, Live, str, int]] = {
    "a tool's transaction": (books, drain, OUTCOME, 0),
    "an async tool's transaction": (books_async, drain, OUTCOME, 0),
}

# How the first try ended makes no difference to most writes: these stand for the others.
KINDS = [
    *((name, Cut.AFTER) for name in WRITES | TRANSACTIONS),
    *((name, Cut.BEFORE) for name in ("a checkpoint", "a later checkpoint", "a doubt")),
    ("completing", Cut.BEFORE),
    *((name, Cut.LATE) for name in ("a checkpoint", "a result", "completing", *TRANSACTIONS)),
]


UNDISTURBED: dict[str, Any] = {}
"""What the same run comes to when nothing is cut."""

TAKE_BOOKS = "DELETE FROM books RETURNING n"


@pytest.mark.parametrize(("name", "cut"), KINDS, ids=lambda value: getattr(value, "name", value))
async def test_nothing_differs(
    network: Network,
    empty_url: str,
    caplog: pytest.LogCaptureFixture,
    name: str,
    cut: Cut,
) -> None:
    make, live, where, spare = (WRITES | TRANSACTIONS)[name]
    if name not in UNDISTURBED:
        async with lived(network.url, "undisturbed", make, live) as (_, told):
            UNDISTURBED[name] = told, sql(empty_url, TAKE_BOOKS)

    strike = network.strike(cut, where, spare=spare)
    delivering = asyncio.create_task(_deliver(strike, network, empty_url))
    async with lived(network.url, "struck", make, live) as (run, told):
        assert strike.done.is_set(), "the network has struck"
        if cut is Cut.LATE:
            await delivering
            await until(strike.delivered.is_set, "the first one arrives after all")
            told |= await story(run)
        assert (told, sql(empty_url, TAKE_BOOKS)) == UNDISTURBED[name]
    assert "stopped:" not in caplog.text, "the attempt takes what it did itself for another's"
    delivering.cancel()


async def _deliver(strike: Strike, network: Network, url: str) -> None:
    """Let a late commit through, as soon as whoever repeats the write has to wait for it.

    A statement that is a transaction by itself has not begun: it arrives after it was repeated.
    """
    waiting = (
        "SELECT 1 FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    await until(strike.done.is_set, "the network strikes")
    before = len(network.commits)

    def repeated() -> bool:
        later = network.commits[before:]
        return any(strike.where.search(" ".join(statements)) for statements in later)

    if strike.how is Cut.LATE:
        await until(
            lambda: repeated() or bool(sql(url, waiting)),
            "the second try waits for the first, or is made",
        )
        strike.deliver.set()


@pytest.mark.parametrize("make", [books, books_async])
async def test_tool_whose_transaction_was_not_committed_runs_again_at_once(
    network: Network, empty_url: str, make: Make
) -> None:
    strike = network.strike(Cut.BEFORE, OUTCOME)
    async with lived(network.url, "struck", make) as (run, _):
        assert strike.done.is_set()
        assert run.output() == "done"
        assert [a.outcome for a in await run.attempts()] == ["completed"]
    assert sql(empty_url, "SELECT n FROM books") == [(1,)]


async def test_claim_that_nobody_heard_of_costs_no_failure(network: Network) -> None:
    """The worker finds out that it holds a run that it does not execute."""
    strike = network.strike(Cut.AFTER, CLAIM)

    async def work(app: Durably, run: Run[Any], stage: Stage) -> None:
        async with app.worker(lease=1):
            await run.result(timeout=120)

    async with lived(network.url, "struck", acts(effects.READ), work) as (run, _):
        assert strike.done.is_set()
        assert (run.record.failures, run.record.crashes) == (0, 0)
        assert [a.outcome for a in await run.attempts()] == ["handed_back", "completed"]


# --- servers that are away for a while


async def drain_while_down(network: Network, app: Durably) -> None:
    draining = asyncio.create_task(app.drain())
    await until(lambda: network.refused > 5, "it tries")
    network.down.clear()
    await draining


async def test_server_that_is_away_when_a_run_is_loaded_costs_time_only(network: Network) -> None:
    """A second attempt asks for more than came along with its claim."""
    strike = network.strike(Cut.BEFORE, LOAD, for_good=True)

    async def work(app: Durably, run: Run[Any], stage: Stage) -> None:
        await drain_while_down(network, app)

    make = acts(effects.READ, RuntimeError("boom"))
    async with lived(network.url, "struck", make, work) as (run, _):
        assert strike.done.is_set()
        assert run.output() == "done"
        assert (run.record.attempt, run.record.failures) == (2, 1)


@pytest.mark.parametrize(
    "metadata",
    [effects.READ, effects.IDEMPOTENT, effects.once()],
    ids=["read", "idempotent", "once"],
)
async def test_server_that_is_away_while_a_tool_works_costs_time_only(
    network: Network, metadata: Any
) -> None:
    def make(stage: Stage) -> Agent[None, str]:
        agent = Agent(Script([call("act")], "done").model, name="agent")

        @agent.tool_plain(metadata=metadata)
        async def act() -> str:
            stage.acted.append("acted")
            network.go_down()
            return "acted"

        return agent

    async def work(app: Durably, run: Run[Any], stage: Stage) -> None:
        await drain_while_down(network, app)

    async with lived(network.url, "struck", make, work) as (run, told):
        assert run.output() == "done"
        assert told["acted"] == ["acted"]
        assert (run.record.attempt, run.record.failures) == (1, 0)


@pytest.mark.parametrize("in_thread", [True, False], ids=["sync", "async"])
async def test_transaction_waits_for_a_server_that_is_away(
    network: Network, empty_url: str, in_thread: bool
) -> None:
    def make(stage: Stage) -> Agent[None, str]:
        agent = Agent(Script([call("book")], "done").model, name="agent")

        def book() -> str:
            network.go_down()
            with current_call().transaction() as connection:
                connection.execute("INSERT INTO books VALUES (1)")
            return "booked"

        async def book_async() -> str:
            network.go_down()
            async with current_call().transaction() as connection:
                await connection.execute("INSERT INTO books VALUES (1)")
            return "booked"

        tool = book if in_thread else book_async
        agent.tool_plain(metadata=effects.TRANSACTIONAL, name="book")(tool)
        return agent

    async def work(app: Durably, run: Run[Any], stage: Stage) -> None:
        await drain_while_down(network, app)

    async with lived(network.url, "struck", make, work) as (run, _):
        assert run.output() == "done"
        assert (run.record.attempt, run.record.failures) == (1, 0)
    assert sql(empty_url, "SELECT n FROM books") == [(1,)]


async def test_late_evidence_waits_for_a_server_that_is_away(
    network: Network, empty_url: str
) -> None:
    """That it was away is why the run was lost; nobody need be asked about a call that is known."""

    def make(stage: Stage) -> Agent[None, str]:
        agent = Agent(Script([call("act")], "done").model, name="agent")

        @agent.tool_plain(metadata=effects.once())
        async def act() -> str:
            stage.acted.append("acted")
            network.go_down()
            stage.started.set()
            await stage.go_on.wait()
            return "acted"

        return agent

    async def work(app: Durably, run: Run[Any], stage: Stage) -> None:
        async with app.worker(lease=1) as worker:
            await stage.started.wait()
            await until(lambda: not worker.executing, "its lease is over")
            stage.go_on.set()
            refused = network.refused
            await until(lambda: network.refused > refused + 5, "it tries")
            network.down.clear()
            await run.result(timeout=120)

    async with lived(network.url, "struck", make, work) as (run, told):
        assert told["acted"] == ["acted"]
        (effect,) = await run.effects()
        assert effect.resolved_by == "late evidence"
        assert run.record.failures == 0
