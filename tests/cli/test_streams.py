"""``durably watch`` of a run that streams, from other processes, while it is made."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_ai import Agent

from durably import Durably
from support.desk import DEADLINE_SECONDS, Desk
from support.scripted import NOW
from support.spoken import Spoken
from support.terminal import Terminal

pytestmark = pytest.mark.timeout(400)


def watching(*more: str) -> list[str]:
    return [sys.executable, "-m", "durably", "watch", "k", *more]


def test_terminal_shows_a_message_while_it_is_made_and_takes_half_of_it_back(
    desk: Desk, on_sqlite: None, tmp_path: Path
) -> None:
    async def tell(terminal: Terminal) -> None:
        half, whole = asyncio.Event(), asyncio.Event()
        model = Spoken(
            ["A \x1b[2J mess", half.wait, ValueError("it broke")],
            ["A whole ", whole.wait, "message."],
        )
        agent = Agent(model.model, name="speaker")
        async with Durably(desk.url) as app:
            app.register(agent, stream=True, retry=NOW)
            async with app.worker():
                await asyncio.to_thread(terminal.wait_for, "A ␛.2J mess")
                half.set()
                await asyncio.to_thread(terminal.wait_for, "withdrawn")
                await asyncio.to_thread(terminal.wait_for, "A whole")
                whole.set()
                await asyncio.to_thread(terminal.wait_for, "completed")

    desk.enqueue("speaker", "k")
    env = {**os.environ, "DURABLY_APP": ""}
    piped = tmp_path / "events.jsonl"
    with (
        piped.open("w") as out,
        subprocess.Popen(watching("--json"), env=env, stdout=out) as other,
        Terminal(watching(), env, DEADLINE_SECONDS) as terminal,
    ):
        try:
            terminal.wait_for("enqueued")
            asyncio.run(tell(terminal))
            assert terminal.ended() == 0
            assert other.wait(DEADLINE_SECONDS) == 0
        finally:
            other.kill()
    assert "assistant   A whole message." in terminal.shown

    events = [json.loads(line) for line in piped.read_text().splitlines()]
    kinds = [event["kind"] for event in events]
    assert "delta" in kinds and "withdrawn" in kinds and kinds[-1] == "completed"
    assert events[kinds.index("delta")]["data"]["message"] == 1

    lines = desk.run("watch", "k").out
    assert "assistant   A whole message." in lines and "withdrawn  attempt 1  message=1" in lines
    assert "mess\n" not in lines and "delta" not in lines


def test_enqueue_says_whether_a_run_streams(desk: Desk, on_sqlite: None) -> None:
    for option, stream in (("--stream", True), ("--no-stream", False)):
        run = json.loads(desk.run("enqueue", "echo", "hello", option, "--json").out)
        assert run["stream"] is stream
        assert json.loads(desk.run("show", run["key"], "--json").out)["run"]["stream"] is stream
    assert json.loads(desk.run("enqueue", "echo", "hello", "--json").out)["stream"] is None
