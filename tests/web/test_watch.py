"""A run as it happens, over HTTP: whole messages, no gap and no repeat, and an end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from durably.run import Run
from durably.web.sse import ServerEvent, event_stream
from support.desk import wait_until
from support.web import Shop


def events_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Server-sent events as a browser reads them."""
    event: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and "data" in event:
            yield event | {"data": json.loads(event["data"])}
            event = {}
        elif name in ("id", "event", "data"):
            event[name] = value


@pytest.mark.parametrize("ledger_url", ["sqlite", "postgres"], indirect=True)
def test_a_watcher_that_comes_back_misses_nothing_and_needs_nothing_else(shop: Shop) -> None:
    with shop.client() as client:
        path = "/api/runs/waiting/watch"
        seen: list[dict[str, Any]] = []
        with client.stream("GET", path) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            for event in events_of(stream.iter_lines()):
                seen.append(event)
                if event["event"] == "suspended":
                    break
        approved = client.post("/api/runs/waiting/approve", json={"call_id": "1.0", "note": "ok"})
        assert approved.json()["state"] == "available"
        asyncio.run(_drain(shop))
        last = {"Last-Event-ID": seen[-1]["id"]}
        with client.stream("GET", path, headers=last, params={"after": 0}) as stream:
            seen += events_of(stream.iter_lines())
        ids = [int(event["id"]) for event in seen]
        assert ids == sorted(set(ids))
        whole = client.get("/api/runs/waiting/events").json()["events"]
        assert [event["id"] for event in whole] == ids
        assert all(event["event"] == event["data"]["kind"] for event in seen)
        said = [message for event in seen for message in event["data"].get("messages", ())]
        assert said == client.get("/api/runs/waiting/history").json()["messages"]
        assert said[-1]["body"]["parts"][0]["content"] == "pay_back: paid back 5"
        assert seen[-1]["event"] == "completed"

        # An EventSource that reads 204 does not come back any more.
        ended = client.get(path, headers={"Last-Event-ID": seen[-1]["id"]})
        assert ended.status_code == 204
        assert client.get("/api/runs/none/watch").status_code == 404


async def _drain(shop: Shop) -> None:
    async with shop.app() as app:
        await app.drain()


async def test_a_stream_says_that_it_lives_and_ends_what_it_reads() -> None:
    closed = asyncio.Event()

    async def slow() -> Any:
        try:
            yield ServerEvent("one\r\ntwo\rthree", "a\nb", "7")
            await asyncio.Event().wait()
        finally:
            closed.set()

    stopping = asyncio.Event()
    body = event_stream(slow(), stopping, heartbeat_seconds=0.01).body_iterator
    pieces = [await anext(body) for _ in range(4)]
    assert pieces[1] == b"id: 7\nevent: a b\ndata: one\ndata: two\ndata: three\n\n"
    assert pieces[2:] == [b": alive\n\n"] * 2
    stopping.set()
    assert b": alive" not in b"".join([bytes(piece) async for piece in body])[10:]
    assert closed.is_set()


def test_a_watcher_that_goes_away_is_noticed(shop: Shop) -> None:
    watching, ended = [], []
    original = Run.watch

    async def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        watching.append(self.key)
        try:
            async for event in original(self, *args, **kwargs):
                yield event
        finally:
            ended.append(self.key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "watch", counted)
        with shop.client() as client, client.stream("GET", "/api/runs/asking/watch") as stream:
            next(events_of(stream.iter_lines()))
        assert watching == ["asking"]
        wait_until(lambda: ended == ["asking"])
