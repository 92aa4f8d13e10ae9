"""Cost stays linear: what a step, a claim or a look costs does not grow with what is there."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from durably.ledger import steps
from durably.ledger.operations import Operation
from durably.ledger.queries import load_queries
from durably.ledger.sqlite import database as sqlite_driver
from durably.ledger.sqlite.connection import connect
from durably.ledger.steps import Step
from durably.records import RunRecord
from support.ledgers import Clock, Ledger, SqliteBackend, done, message, tool_call

PER_STEP = {"insert_message", "insert_event", "insert_intent", "record_outcome", "touch_run"}
PER_STEP |= {"hold_run", "withdraw_intent", "get_effect", "settle_late", "withdraw_late"}
PER_STEP |= {"doubt_effect"}
PER_ATTEMPT = {"claim_runs", "claim_run", "next_due", "insert_attempt", "end_attempt"}
PER_ATTEMPT |= {"complete_run", "fail_run", "discard_run", "suspend_run", "hand_back_run"}
PER_ATTEMPT |= {"stop_run", "doubt_effects", "wake_settled_run", "list_messages", "list_effects"}
PER_ATTEMPT |= {"get_queue"}
PER_LOOK = {
    "count_orphans",
    "list_orphans",
    "rescue_run",
    "held_runs",
    "register_worker",
    "get_run",
}
PER_LOOK |= {"list_events", "list_inbox", "find_recent_run", "insert_run", "prune_runs"}


@pytest.mark.parametrize("name", sorted(PER_STEP | PER_ATTEMPT | PER_LOOK))
async def test_statement_finds_its_rows_by_index(sqlite: SqliteBackend, name: str) -> None:
    plan = explain(sqlite.path, name)
    assert not [step for step in plan if re.search(r"SCAN (durably_(?!workers)|[a-z]\b)", step)]


@pytest.mark.parametrize("name", ["claim_runs", "next_due"])
async def test_backlog_of_one_queue_costs_the_others_nothing(
    sqlite: SqliteBackend, name: str
) -> None:
    plan = " ".join(explain(sqlite.path, name))
    used = set(re.findall(r"durably_runs USING INDEX (durably_\w+) \(queue=", plan))
    assert used == {"durably_runs_available", "durably_runs_due"}
    assert "durably_runs_state" not in plan


async def test_pruning_looks_only_at_what_is_old(sqlite: SqliteBackend) -> None:
    assert "durably_runs_finished (finished_at<?)" in " ".join(explain(sqlite.path, "prune_runs"))


def explain(path: Path, name: str) -> list[str]:
    """SQLite's plan for a statement, one line a step."""
    sql = load_queries("sqlite")[name]
    parameters = dict.fromkeys(re.findall(r":(\w+)", sql), 1)
    with closing(connect(path, Clock())) as connection:
        return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, parameters)]


# --- writes


class Writes:
    """Counts what the ledger's statements carry, as they go by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: Counter[str] = Counter()
        self.bytes = 0
        real = sqlite_driver.drive

        def counted[T](connection: sqlite3.Connection, operation: Operation[T]) -> T:
            return real(connection, self._look(operation))

        monkeypatch.setattr(sqlite_driver, "drive", counted)

    def _look[T](self, operation: Operation[T]) -> Operation[T]:
        try:
            statement = next(operation)
            while True:
                self.names[statement.name] += 1
                self.bytes += len(str(dict(statement.params)))
                statement = operation.send((yield statement))
        except StopIteration as end:
            return end.value

    def take(self) -> tuple[Counter[str], int]:
        taken = self.names, self.bytes
        self.names, self.bytes = Counter(), 0
        return taken


def step_of(number: int) -> Step:
    """What a step writes: a response, the request that answers it, and an effect."""
    first = 100 + 2 * number
    return Step(
        usage='{"requests": 100}',
        messages=(message(first, '"response"'), message(first + 1, '"request"')),
        outcomes=(done(tool_call(first)),),
        events=(("step", {"messages": [first, first + 1]}),),
    )


async def test_step_costs_the_same_however_long_the_history(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await ledger.executing()
    writes = Writes(monkeypatch)
    costs: list[tuple[Counter[str], int]] = []
    for number in range(60):
        await ledger.write(steps.record_step, run.claim, step_of(number))
        costs.append(writes.take())
    assert costs[5] == costs[50]
    assert all(cost == costs[0] for cost in costs)


async def test_step_writes_as_many_pages_however_long_the_history(
    ledger: Ledger, sqlite: SqliteBackend
) -> None:
    """Also on disk: a page more or less where a B-tree grows, never a rewritten history."""
    run = await ledger.executing()
    body = "x" * 1000
    pages: list[int] = []
    for number in range(200):
        step = replace(step_of(number), messages=(message(number, body),))
        pages.append(await pages_written(ledger, sqlite, run, step))
    assert max(pages[-50:]) <= max(pages[:50]) + 2


async def test_step_writes_as_many_pages_however_long_the_prompt(
    ledger: Ledger, sqlite: SqliteBackend
) -> None:
    pages: dict[int, list[int]] = {}
    for size in (1_000, 10_000_000):
        run = await ledger.claim(await ledger.insert(prompt=json.dumps("x" * size)))
        first = Step(messages=(message(0, json.dumps("x" * size)),))
        await ledger.write(steps.record_step, run.claim, first)
        pages[size] = [
            await pages_written(ledger, sqlite, run, step_of(number)) for number in range(10)
        ]
    assert sum(pages[10_000_000]) <= sum(pages[1_000]) + 10
    assert max(pages[10_000_000]) < 20


async def pages_written(ledger: Ledger, sqlite: SqliteBackend, run: RunRecord, step: Step) -> int:
    """How many pages one step adds to the write-ahead log."""
    with closing(sqlite3.connect(sqlite.path)) as connection:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        await ledger.write(steps.record_step, run.claim, step)
        # WAL header and frame header: SQLite docs, "WAL-mode File Format".
        size = sqlite.path.with_name(sqlite.path.name + "-wal").stat().st_size
        pages = (size - 32) // (page_size + 24)
    assert pages > 0
    return pages
