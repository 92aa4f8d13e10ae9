"""What is shown of a message is never another text, whatever becomes of the database meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent
from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

from durably import Draft, Durably, Run
from durably.agents.live import event_to_json, length_of, merge
from durably.agents.registry import Registry
from durably.errors import LedgerUnavailable
from durably.execution.feed import BACKLOG_CHARS, GAP_SECONDS, Feed
from durably.ledger import deltas, reads
from durably.ledger.database import Database
from durably.run import LOOK_SECONDS
from support.ledgers import PATIENCE_SECONDS, Clock, Ledger, SqliteBackend
from support.pg_proxy import PgProxy
from support.postgres_run import Postgres
from support.spoken import Onlooker, Piece, Spoken

WORDS = [f"word{number} " for number in range(8)]


# --- an outage in the middle of a stream

type Outage = Callable[[], Awaitable[object]]


@pytest.fixture(params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Outage]]:
    """A ledger's URL, and what renames its file, or cuts its connections, for a moment."""
    path, away = tmp_path / "ledger.db", tmp_path / "away.db"

    async def rename() -> None:
        path.rename(away)
        await asyncio.sleep(2 * GAP_SECONDS)
        away.rename(path)

    if request.param == "sqlite":
        yield f"sqlite:///{path}", rename
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database(template=postgres.migrated) as url, PgProxy(url) as proxy:

        async def cut() -> None:
            for _ in range(3):
                proxy.cut()
                await asyncio.sleep(GAP_SECONDS / 2)

        yield proxy.url, cut


async def test_outage_in_the_middle_of_a_stream_garbles_nothing(site: tuple[str, Outage]) -> None:
    url, outage = site
    eye = Onlooker()
    pieces: list[Piece] = []
    for number, word in enumerate(WORDS):
        pieces += [word, outage] if number % 3 == 1 else [word]
        if number % 3 == 2:
            so_far = "".join(WORDS[: number + 1])
            pieces.append(eye.sees(lambda draft, text=so_far: draft.text == text))
    agent = Agent(Spoken(pieces).model, name="speaker")
    async with Durably(url) as app, asyncio.timeout(PATIENCE_SECONDS):
        app.register(agent, stream=True)
        run = await app.enqueue(agent, "Speak.")
        async with app.worker():
            await eye.watch(run)
        assert await run.result() == "".join(WORDS)
        assert all("".join(WORDS).startswith(text) for text in eye.texts), eye.texts
        assert len(await run.attempts()) == 1, "the run did not mind"
        assert [e for e in await run.events() if e.kind in ("delta", "withdrawn")] == []


# --- the feed alone


class Faulty:
    """A database that says it is away, for some writes: before they are made, or after."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.faults: list[str] = []
        self.writes: list[float] = []

    async def write(self, *args: Any, **kwargs: Any) -> Any:
        fault = self.faults.pop(0) if self.faults else ""
        self.writes.append(time.monotonic())
        if fault == "before":
            raise LedgerUnavailable("away")
        result = await self._database.write(*args, **kwargs)
        if fault == "after":
            raise LedgerUnavailable("gone before it answered")
        return result


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    clock = Clock()
    backend = SqliteBackend(tmp_path / "ledger.db", clock)
    await backend.database.open()
    yield Ledger(backend, clock)
    await backend.database.close()


async def test_watcher_looks_seldom_however_much_is_written(ledger: Ledger) -> None:
    """And one that takes its time keeps nobody from writing."""
    run, counted = await ledger.executing(), Counted(ledger.database)
    watched = Run[str](counted, Registry(), run)  # pyright: ignore[reportArgumentType]
    seen: list[str] = []
    last, count = 0, 200

    async def watch() -> None:
        async for event in watched.watch():
            if event.kind == "delta":
                seen.extend(event.data["events"])

    slow = watched.watch()
    assert (await anext(slow)).kind == "enqueued"
    began = time.monotonic()
    watching = asyncio.create_task(watch())
    for number in range(count):
        data = json.dumps({"message": 1, "events": [f"word {number}"]})
        last = await ledger.write(deltas.write, run.claim, 1, data, last)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(seen) < count:
            await asyncio.sleep(0.01)
    looks = 1 + (time.monotonic() - began) / LOOK_SECONDS
    assert counted.reads <= 2 + looks
    assert seen == [f"word {number}" for number in range(count)]
    watching.cancel()
    assert (await anext(slow)).kind == "claimed"
    await slow.aclose()


class Counted:
    """A database that counts reads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reads = 0
        self.subscribe = database.subscribe

    async def read(self, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        return await self._database.read(*args, **kwargs)


class Speech:
    """A feed of one executing run, and the text that whoever watches has of it."""

    def __init__(self, ledger: Ledger, run: Any) -> None:
        self.database = Faulty(ledger.database)
        self.feed = Feed(self.database, run.claim, merge)  # pyright: ignore[reportArgumentType]
        self._ledger, self._run = ledger, run

    def say(self, text: str, message: int = 1, *, start: bool = False) -> None:
        part = PartStartEvent(index=0, part=TextPart(text))
        more = PartDeltaEvent(index=0, delta=TextPartDelta(text))
        event = event_to_json(part if start else more)
        self.feed.add(message, event, length_of(event))

    async def shown(self) -> tuple[int, str]:
        """How many deltas there are, and the text that they make."""
        draft, deltas = Draft(), 0
        for event in await self._ledger.read(reads.list_events, self._run.id, 0, 1000):
            deltas += event.kind == "delta"
            draft.apply(event)
        return deltas, draft.text

    async def until(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self.shown())[1] != text:
                await asyncio.sleep(0.01)


@pytest.fixture
async def speech(ledger: Ledger) -> AsyncIterator[Speech]:
    speech = Speech(ledger, await ledger.executing())
    yield speech
    await speech.feed.close()


async def test_what_comes_together_is_written_together_and_seldom(speech: Speech) -> None:
    speech.say("a", start=True)
    for _ in range(300):
        speech.say("b")
    await speech.until("a" + 300 * "b")
    assert (await speech.shown())[0] == 1
    for count in range(1, 5):
        speech.say("c")
        await speech.until("a" + 300 * "b" + count * "c")
    gaps = [after - before for before, after in pairwise(speech.database.writes)]
    assert min(gaps) >= GAP_SECONDS * 0.99


async def test_batch_that_nobody_answered_is_shown_once(speech: Speech) -> None:
    speech.database.faults = ["after", "before", "after"]
    speech.say("one, ", start=True)
    await speech.until("one, ")
    speech.say("two, ")
    speech.say("two, ")
    await speech.until("one, two, two, ")
    assert len(speech.database.writes) == 5


async def test_backlog_is_bounded_and_nothing_is_shown_with_a_gap(speech: Speech) -> None:
    speech.say("one, ", start=True)
    await speech.until("one, ")
    speech.database.faults = ["before"] * 1000
    speech.say("x" * BACKLOG_CHARS)
    speech.say("and on")
    assert not speech.feed._pieces and not speech.feed._batch  # pyright: ignore[reportPrivateUsage]
    speech.database.faults = []
    speech.say("and on")
    speech.feed.drop()  # The message is there; the next one is shown again.
    speech.say("next", 3, start=True)
    await speech.until("next")
    assert (await speech.shown())[0] == 2


async def test_words_of_a_response_that_is_asked_for_again_are_taken_back(speech: Speech) -> None:
    speech.say("a result", 2, start=True)
    await speech.until("a result")
    speech.database.faults = ["after", "before"]
    speech.say("half a ", 3, start=True)
    await asyncio.sleep(0)
    speech.feed.ask_again(3)
    speech.say("the whole", 3, start=True)
    await speech.until("the whole")
    deltas, _ = await speech.shown()
    assert deltas == 2, "of the message before, and of this one"
