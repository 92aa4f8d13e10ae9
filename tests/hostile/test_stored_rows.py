"""Whatever somebody has made of stored rows: their run says so, and every other goes on."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest

from durably import Budget, Durably
from durably.cli.main import run as command
from durably.errors import CorruptRecord, DurablyError
from durably.lifecycle import RunState
from durably.records import Waiting
from support.databases import sql

from .damage import clerk, damage, damages

EITHER = (RunState.COMPLETED, RunState.DISCARDED)


async def waiting_run(app: Durably, agent: object, key: str, **options: object) -> None:
    await app.enqueue(agent, "go", key=key, tags=["t"], budget=Budget(requests=9), **options)  # pyright: ignore


async def test_damaged_rows_end_their_own_runs_and_no_others(app_url: str) -> None:
    done: list[str] = []
    async with Durably(app_url, agents=[agent := clerk(done)]) as app:
        app.on_waiting(_nobody)
        cases = {
            f"{table}.{column}.{n}": (table, column, junk)
            for n, (table, column, junk) in enumerate(damages(app_url.startswith("sqlite")))
        }
        for key in [*cases, "bystander"]:
            await waiting_run(app, agent, key)
        await app.drain()
        for key, (table, column, junk) in cases.items():
            damage(app_url, key, table, column, junk)

        await _read_everything(app, [*cases, "bystander"])
        refused = Counter[str]()
        for key in [*cases, "bystander"]:
            try:
                await (await app.get(key)).approve("1.1")
            except DurablyError as error:
                refused[type(error).__name__] += 1
        await app.drain()
        await _read_everything(app, [*cases, "bystander"])

        ends = {key: (await app.get(key)).record for key in cases}
        assert (await app.get("bystander")).state == "completed"
        # Arguments that can be read are tried; what a tool made of them is asked about.
        asked = {item.run_key for item in await app.inbox() if cases[item.run_key][1] == "args"}
        ended = {key for key, run in ends.items() if run.state in EITHER}
        stuck = {key: run.state for key, run in ends.items() if key not in ended | asked}
        assert not stuck, "each says how it ended"
        for key, run in ends.items():
            if run.state is RunState.DISCARDED:
                table, column, _ = cases[key]
                assert run.error is not None and run.error.startswith("CorruptRecord: "), run.error
                assert f"durably_{table}" in run.error or "durably_" in run.error, run.error
                assert run.failures <= 1, "no attempts were spent on what cannot help"
                kinds = [event.kind for event in await (await app.get(key)).events()]
                assert kinds[-2:] == ["quarantined", "discarded"] or column == "data"
        assert len(done) == len(set(ends)) + 1 + done.count("pay"), "nothing was done twice"


async def _read_everything(app: Durably, keys: list[str]) -> None:
    """Every reader shows what there is, and names what it cannot read."""
    assert len(await app.runs(limit=1000)) == len(keys)
    await app.runs(tag="t", limit=1000)
    await app.inbox()
    await app.inbox(tag="t")
    await app.statistics()
    for key in keys:
        run = await app.get(key)
        run.describe_waiting()
        await run.input()
        await run.effects()
        await run.events()
        await run.attempts()
        await run.decisions()
        await run.signals()
        try:
            await run.history()
        except CorruptRecord as error:
            assert "durably_messages.body" in str(error)


async def _nobody(_: Waiting) -> None:
    """Is told."""


async def test_a_missing_message_is_not_asked_for_again(app_url: str) -> None:
    done: list[str] = []
    async with Durably(app_url, agents=[agent := clerk(done)]) as app:
        for key, gone in (("first", 0), ("last", 1)):
            await waiting_run(app, agent, key)
            await app.drain()
            sql(
                app_url,
                f"DELETE FROM durably_messages WHERE seq = {gone} AND run_id = "
                f"(SELECT id FROM durably_runs WHERE key = '{key}')",
            )
            await (await app.get(key)).approve("1.1")
            await app.drain()
            run = await app.get(key)
            assert run.state == "discarded" and "durably_messages" in (run.record.error or "")
    assert done == ["act", "act"], "what was recorded answers no other response"


async def test_a_mended_run_goes_on_where_it_stopped(app_url: str) -> None:
    done: list[str] = []
    async with Durably(app_url, agents=[agent := clerk(done)]) as app:
        await waiting_run(app, agent, "k", thread="t")
        await waiting_run(app, agent, "after", thread="t")
        await app.drain()
        damage(app_url, "k", "runs", "meta", "[1]")
        run = await app.get("k")
        assert run.record.damage == ("durably_runs.meta is a list, not an object",)
        await run.approve("1.1")
        await app.drain()
        with pytest.raises(DurablyError, match=r"durably_runs\.meta"):
            await (await app.get("k")).result()
        assert (await app.get("after")).state == "completed", "its thread went on"

        await waiting_run(app, agent, "alone")
        await app.drain()
        damage(app_url, "alone", "runs", "meta", "[1]")
        await (await app.get("alone")).approve("1.1")
        await app.drain()
        damage(app_url, "alone", "runs", "meta", "{}")
        await (await app.get("alone")).retry()
        await app.drain()
        assert await (await app.get("alone")).result() == "done"
    assert done == ["act", "act", "pay"], "mended, it does only what was left"


async def test_a_damaged_shared_budget_leaves_no_room_until_it_is_set(app_url: str) -> None:
    done: list[str] = []
    async with Durably(app_url, agents=[agent := clerk(done)]) as app:
        await app.set_budget(Budget(requests=50), tag="t")
        sql(app_url, "UPDATE durably_budgets SET limits = '[7]'")
        assert (await app.budgets())[0].damage
        await waiting_run(app, agent, "k")
        await app.drain()
        run = await app.get("k")
        assert run.record.waiting_on is not None and run.record.waiting_on["kind"] == "budget"
        assert not done
        await app.set_budget(Budget(requests=50), tag="t")
        await app.drain()
        assert done == ["act"]


def test_commands_show_damaged_runs(
    app_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import asyncio

    async def prepare() -> None:
        async with Durably(app_url, agents=[agent := clerk([])]) as app:
            await waiting_run(app, agent, "k")
            await app.drain()

    asyncio.run(prepare())
    damage(app_url, "k", "runs", "meta", "[1]")
    damage(app_url, "k", "runs", "waiting_on", "7")
    damage(app_url, "k", "events", "data", "[1]")
    monkeypatch.setenv("DURABLY_URL", app_url)
    for name in [n for n in os.environ if n.startswith("DURABLY_") and n != "DURABLY_URL"]:
        monkeypatch.delenv(name)
    for words in (["runs"], ["inbox"], ["show", "k"], ["queues"]):
        assert command(words) == 0, words
    said = capsys.readouterr().out
    assert "durably_runs.meta is a list, not an object" in said
    assert command(["show", "k", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"]["damage"]
