"""A ledger under test: its clock, raw looks at its tables, and runs put into any state."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg

from durably import testing
from durably.ledger import attempts, reads, runs, steps, workers
from durably.ledger.database import Database
from durably.ledger.operations import Operation
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.sqlite.database import SqliteDatabase
from durably.ledger.written import CallOutcome, NewMessage, Step, ToolCall
from durably.lifecycle import EffectState, RunState
from durably.records import CallPosition, Claim, Effect, NewRun, RunRecord

TABLES = ("runs", "inputs", "messages", "effects", "decisions", "signals", "notices")
TABLES += ("attempts", "events", "workers", "queues", "budgets", "actions")
LEASE_SECONDS = 30.0
PATIENCE_SECONDS = 120.0
"""How long a test waits for something before it counts as not happening at all."""


class Clock(testing.Clock):
    """One that stands at the same time in every test, until a test moves it."""

    def __init__(self) -> None:
        super().__init__(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))


class Backend(Protocol):
    """What differs between databases: how to make one, and how to look at it from outside.

    Attributes:
        url: names it to another process.
        writers: how many of its transactions write at the same time.
    """

    url: str
    database: Database
    writers: int

    def connect(self) -> AbstractContextManager[Any]:
        """A connection of the application's own, as its driver opens it."""
        ...

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows, read on a connection of its own."""
        ...


class SqliteBackend:
    """A ledger in a file of its own."""

    writers = 1

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        self.path = path
        self.url = str(path)
        self.database = SqliteDatabase(path, clock=clock)

    @property
    def writing(self) -> sqlite3.Connection:
        """The connection that the ledger writes with; only while it is open."""
        writer = self.database._writer  # pyright: ignore[reportPrivateUsage]
        assert writer is not None
        return writer._batches._connection  # pyright: ignore[reportPrivateUsage]

    def connect(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self.path))

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(sql).fetchall()


class PostgresBackend:
    """A ledger in a database of its own; its URL is one that libpq knows."""

    def __init__(self, url: str, clock: Callable[[], datetime] | None) -> None:
        self.url = url
        self.database = PostgresDatabase(url, clock=clock)
        self.writers = self.database.where.lanes

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url)

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(sql.encode()).fetchall()


class Ledger:
    """One open ledger and short words for what tests do with it.

    Attributes:
        clock: the time that the database answers.
    """

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self.backend = backend
        self.clock = clock
        self.database = backend.database
        self._names = 0

    async def write[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self.database.write(operation, *args, **kwargs)

    async def read[**P, T](
        self, operation: Callable[P, Operation[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return await self.database.read(operation, *args, **kwargs)

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table, as it is stored."""
        with self.backend.connect() as connection:
            return {
                table: sorted(connection.execute(f"SELECT * FROM durably_{table}"), key=repr)
                for table in TABLES
            }

    # --- runs in any state

    async def insert(self, key: str | None = None, **options: Any) -> RunRecord:
        self._names += 1
        run, created = await self.write(runs.insert, new_run(key or f"r{self._names}", **options))
        assert created
        return run

    async def worker(self, worker_id: str = "w1", lease_seconds: float = LEASE_SECONDS) -> str:
        await self.write(workers.register, worker_id, worker_id, 1, {"agents": 20}, lease_seconds)
        return worker_id

    async def claim(self, run: RunRecord, worker_id: str = "w1") -> RunRecord:
        """The run, claimed by a live worker."""
        await self.worker(worker_id)
        claimed = await self.write(attempts.claim_one, worker_id, run.id)
        assert claimed is not None, f"{run.key} cannot be claimed"
        return claimed

    async def executing(self, worker_id: str = "w1", **options: Any) -> RunRecord:
        """A new run in its second attempt, so that a stale attempt exists."""
        run = await self.claim(await self.insert(**options), worker_id)
        handed_back = await self.write(attempts.hand_back, run.claim, Step())
        return await self.claim(handed_back, worker_id)

    async def in_state(self, state: RunState, **options: Any) -> RunRecord:
        """A run in this state, by way of real transitions, and due if it waits for a time."""
        match state:
            case RunState.SCHEDULED:
                run = await self.insert(delay_seconds=60.0, **options)
                self.clock.advance(61)
                await self.worker()
                return run
            case RunState.AVAILABLE:
                run = await self.executing(**options)
                return await self.write(attempts.hand_back, run.claim, Step())
            case RunState.EXECUTING:
                return await self.executing(**options)
        run = await self.executing(**options)
        match state:
            case RunState.RETRYABLE:
                run = await self.write(attempts.fail, run.claim, "boom", "", 60.0, Step())
                self.clock.advance(61)
                await self.worker()
                return run
            case RunState.SUSPENDED:
                asked = CallOutcome(tool_call(), EffectState.AWAITING, asked=True)
                step = Step(outcomes=(asked,))
                return await self.write(
                    attempts.suspend, run.claim, "effects", {"effects": ["0.0"]}, step
                )
            case RunState.COMPLETED:
                return await self.write(attempts.complete, run.claim, '"done"', Step())
            case RunState.DISCARDED:
                return await self.write(attempts.discard, run.claim, "no use", "", Step())
            case RunState.CANCELLED:
                return await self.write(attempts.stop, run.claim, Step())

    # --- looks

    async def get(self, run: RunRecord) -> RunRecord:
        return await self.read(reads.get_run, run.key)

    async def effect(self, run: RunRecord, call: ToolCall) -> Effect | None:
        effects = await self.read(reads.list_effects, run.id)
        return next((e for e in effects if e.position == call.position), None)

    async def event_kinds(self, run: RunRecord) -> list[str]:
        return [event.kind for event in await self.read(reads.list_events, run.id, 0, 1000)]

    async def started(self, run: RunRecord, call: ToolCall | None = None) -> Effect:
        """The run's call, its intent recorded."""
        call = call or tool_call()
        instead = await self.write(steps.record_intent, run.claim, call)
        return instead or await self.recorded(run, call)

    async def ended(self, run: RunRecord, outcome: CallOutcome) -> Effect:
        """The call of the outcome, that recorded."""
        instead = await self.write(steps.record_outcome, run.claim, outcome)
        return instead or await self.recorded(run, outcome.call)

    async def recorded(self, run: RunRecord, call: ToolCall) -> Effect:
        """What is recorded of the run's call."""
        effect = await self.effect(run, call)
        assert effect is not None
        return effect


def new_run(key: str, **options: Any) -> NewRun:
    return NewRun(**{"key": key, "agent": "a", "prompt": '"hi"', **options})


def stale(run: RunRecord) -> Claim:
    """The claim of the attempt before."""
    return Claim(run.id, run.attempt - 1, "w1")


def tool_call(
    response: int = 0, call: int = 0, *, policy: str = "once", tool_call_id: str = "call_0"
) -> ToolCall:
    return ToolCall(
        position=CallPosition(response, call),
        tool_name="charge",
        tool_call_id=tool_call_id,
        args="{}",
        policy=policy,
        on_doubt="ask" if policy == "once" else None,
        idempotency_key=f"k:{response}.{call}",
    )


def done(call: ToolCall | None = None, result: str = '{"return_value": 1}') -> CallOutcome:
    return CallOutcome(call or tool_call(), EffectState.DONE, result)


def message(seq: int, body: str = "{}") -> NewMessage:
    return NewMessage(seq, "request" if seq % 2 == 0 else "response", body)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, for as long as a slow machine may need."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what
