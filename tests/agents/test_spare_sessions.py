"""PostgreSQL sessions that transactional tools had: kept for the next, nothing left in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent

from durably import Durably, LedgerError, RunState, current_call, effects
from durably.ledger.postgres import spare
from support.databases import ON_POSTGRES, sql
from support.ledgers import until
from support.scripted import Script, call

pytestmark = [pytest.mark.by_database, ON_POSTGRES]

BOTH = pytest.mark.parametrize("in_thread", [True, False], ids=["sync", "async"])

LEAVES = (
    "SET search_path TO pg_catalog",
    "SET statement_timeout TO '77s'",
    "CREATE TEMPORARY TABLE scratch (n INTEGER)",
    "SELECT pg_advisory_lock(4711)",
    "PREPARE mine AS SELECT 1",
    "LISTEN gossip",
    "DECLARE held CURSOR WITH HOLD FOR SELECT 1",
)
"""What a tool may leave in its session that outlives its transaction."""

LEFT = """
    SELECT current_setting('search_path') LIKE '%pg_catalog%',
           current_setting('statement_timeout') = '77s',
           to_regclass('pg_temp.scratch') IS NOT NULL,
           EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711),
           EXISTS (SELECT 1 FROM pg_prepared_statements WHERE name = 'mine'),
           EXISTS (SELECT 1 FROM pg_listening_channels()),
           EXISTS (SELECT 1 FROM pg_cursors WHERE name = 'held')
"""


class Clerks:
    """Runs, one after the other, of an agent whose one tool works in its transaction."""

    def __init__(self, app: Durably, in_thread: bool) -> None:
        self.lent: list[Any] = []
        self.pids: list[int] = []
        self.answers: list[Any] = []
        self.ask: tuple[str, ...] = ()
        self.fails: Exception | None = None
        self._app = app
        app.register(self._agent(in_thread), max_attempts=1)

    async def run(self, *ask: str) -> RunState:
        self.ask = ask
        run = await self._app.enqueue("clerk", "hi")
        await self._app.drain()
        return (await run.refresh()).state

    def _agent(self, in_thread: bool) -> Agent[None, str]:
        script = Script(*([call("book"), "done"] * 9))
        agent = Agent(script.model, name="clerk")
        if in_thread:

            @agent.tool_plain(metadata=effects.TRANSACTIONAL, name="book")
            def sync_book() -> str:
                with current_call().transaction() as connection:
                    self._note(connection)
                    for statement in self.ask:
                        cursor = connection.execute(statement)
                        self.answers.append(cursor.fetchone() if cursor.description else None)
                return self._end()
        else:

            @agent.tool_plain(metadata=effects.TRANSACTIONAL)
            async def book() -> str:
                async with current_call().transaction() as connection:
                    self._note(connection)
                    for statement in self.ask:
                        cursor = await connection.execute(statement)
                        self.answers.append(await cursor.fetchone() if cursor.description else None)
                return self._end()

        return agent

    def _note(self, connection: Any) -> None:
        self.lent.append(connection)
        self.pids.append(connection.info.backend_pid)

    def _end(self) -> str:
        if self.fails is not None:
            raise self.fails
        return "booked"


def there(app: Durably, pid: int) -> bool:
    return bool(sql(app.settings.url, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"))


@BOTH
async def test_next_tool_finds_nothing_of_the_one_before(app: Durably, in_thread: bool) -> None:
    clerks = Clerks(app, in_thread)
    assert await clerks.run(*LEAVES) is RunState.COMPLETED
    await until(lambda: not locked(app), "its lock is let go without anybody's asking")
    assert await clerks.run(LEFT) is RunState.COMPLETED
    assert len(set(clerks.pids)) == 1, "the same session"
    assert clerks.answers[-1] == (False,) * 7
    first, second = clerks.lent
    assert first is not second, "what a tool did to psycopg's own object is not there either"


def locked(app: Durably) -> bool:
    return bool(
        sql(
            app.settings.url,
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711",
        )
    )


@BOTH
async def test_connection_that_a_tool_kept_does_nothing_in_anothers_transaction(
    app: Durably, in_thread: bool
) -> None:
    clerks = Clerks(app, in_thread)
    await clerks.run("SELECT 1")
    (kept,) = clerks.lent

    async def asked(work: Callable[[], Any]) -> None:
        with pytest.raises(LedgerError, match="over"):
            answer = work()
            if hasattr(answer, "__await__"):
                await answer

    assert there(app, clerks.pids[0]), "its session waits for the next tool"
    assert kept.closed
    await asked(lambda: kept.execute("SELECT 1"))
    await asked(lambda: kept.cancel())
    await asked(lambda: kept.cancel_safe())


@BOTH
async def test_session_that_the_server_ended_is_not_used(app: Durably, in_thread: bool) -> None:
    clerks = Clerks(app, in_thread)
    await clerks.run("SELECT 1")
    sql(app.settings.url, f"SELECT pg_terminate_backend({clerks.pids[0]}, 60000)")
    assert await clerks.run("SELECT 2") is RunState.COMPLETED
    assert clerks.answers == [(1,), (2,)]
    assert len(set(clerks.pids)) == 2


@BOTH
async def test_session_of_a_tool_that_failed_is_ended(app: Durably, in_thread: bool) -> None:
    clerks = Clerks(app, in_thread)
    clerks.fails = RuntimeError("no")
    assert await clerks.run("SELECT 1") is RunState.DISCARDED
    await until(lambda: not there(app, clerks.pids[0]), "it is ended")


async def test_session_that_nobody_needs_is_ended(
    app: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spare, "IDLE_SECONDS", 0.05)
    clerks = Clerks(app, in_thread=False)
    await clerks.run("SELECT 1")
    await until(lambda: not there(app, clerks.pids[0]), "it is ended")


async def test_sessions_end_with_the_ledger(app: Durably) -> None:
    clerks = Clerks(app, in_thread=False)
    await clerks.run("SELECT 1")
    await app.close()
    await until(lambda: not there(app, clerks.pids[0]), "it is ended")
    await app.open()
    assert await clerks.run("SELECT 1") is RunState.COMPLETED


async def test_no_more_are_kept_than_the_server_can_spare(
    app: Durably, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybody = asyncio.Barrier(spare.KEPT + 2)
    pids: list[int] = []
    script = Script(*([call("book")] * everybody.parties), *(["done"] * everybody.parties))
    agent = Agent(script.model, name="crowd")

    @agent.tool_plain(metadata=effects.TRANSACTIONAL)
    async def book() -> str:
        async with current_call().transaction() as connection:
            pids.append(connection.info.backend_pid)
            async with asyncio.timeout(300):
                await everybody.wait()
        return "booked"

    app.register(agent, max_attempts=1)
    for _ in range(everybody.parties):
        await app.enqueue("crowd", "hi")
    async with app.worker({"agents": everybody.parties}):
        await until(lambda: len(pids) == everybody.parties, "all are in their transactions")
        await until(lambda: sum(there(app, pid) for pid in pids) <= spare.KEPT, "some were ended")
