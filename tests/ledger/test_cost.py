"""Cost stays linear: what a step, a claim or a look costs does not grow with what is there."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from durably.ledger import steps
from durably.ledger.operations import Operation
from durably.ledger.queries import load_queries
from durably.ledger.sqlite.connection import connect
from durably.ledger.written import Step
from durably.records import RunRecord
from support.costs import PER_ATTEMPT, PER_LOOK, PER_STEP, step_of
from support.ledgers import Clock, Ledger, SqliteBackend, message


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
    """Counts what an operation's statements carry, as they go by."""

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()
        self.bytes = 0

    def counted[T](self, operation: Operation[T]) -> Operation[T]:
        try:
            statement = next(operation)
            while True:
                self.names[statement.name] += 1
                self.bytes += len(str(dict(statement.params)))
                if statement.instead is not None:
                    statement = statement._replace(instead=self.counted_once(statement.instead))
                statement = operation.send((yield statement))
        except StopIteration as end:
            return end.value

    def counted_once[T](self, operation: Callable[[], Operation[T]]) -> Callable[[], Operation[T]]:
        """Of what a statement does on a database that has it not."""
        return lambda: self.counted(operation())


async def test_step_costs_the_same_however_long_the_history(ledger: Ledger) -> None:
    run = await ledger.executing()
    costs: list[tuple[Counter[str], int]] = []
    for number in range(60):
        writes = Writes()
        step = steps.record_step(run.claim, step_of(number))
        await ledger.write(writes.counted, step)
        costs.append((writes.names, writes.bytes))
    dialect = ledger.database.dialect
    made = [name for name in costs[0][0].elements() if name in load_queries(dialect)]
    assert len(made) == (1 if dialect == "postgres" else 4), made
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
