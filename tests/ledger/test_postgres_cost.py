"""Cost stays linear on PostgreSQL: in a ledger with many runs, and in a run with a long history."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import AsyncGenerator, Generator
from dataclasses import replace
from importlib.resources import files
from typing import Any

import psycopg
import pytest

from durably.ledger import attempts, runs, steps
from durably.ledger.postgres.statements import statements
from durably.ledger.queries import load_queries
from durably.ledger.written import Step
from durably.records import RunRecord
from support.costs import statement_of, step_of
from support.ledgers import Clock, Ledger, PostgresBackend, message
from support.postgres_run import Postgres
from support.postgres_server import PostgresServer

RUNS = 8_000

FILL = f"""
SET synchronous_commit = off;
INSERT INTO durably_runs (key, agent, queue, state, max_attempts, tags, fingerprint, attempt,
                          waiting_kind, worker_id, scheduled_at, inserted_at, finished_at)
SELECT 'r' || n, 'a', CASE WHEN n % 50 = 0 THEN 'agents' ELSE 'backlog' END, state, 5,
       jsonb_build_array('t' || n % 4000), md5(n::text), 1,
       CASE state WHEN 'suspended' THEN 'effects' END,
       CASE state WHEN 'executing' THEN 'w' || n % 20 END,
       now() - make_interval(secs => n), now() - make_interval(secs => n),
       CASE state WHEN 'completed' THEN now() - make_interval(secs => n) END
FROM (SELECT n, CASE WHEN n % 7 = 0 THEN 'available' WHEN n % 11 = 0 THEN 'scheduled'
                     WHEN n % 200 = 1 THEN 'executing' WHEN n % 200 = 2 THEN 'suspended'
                     WHEN n % 200 = 3 THEN 'retryable' ELSE 'completed' END AS state
      FROM generate_series(1, {RUNS}) n) made;
INSERT INTO durably_inputs SELECT id, '"hi"', '{{}}' FROM durably_runs;
INSERT INTO durably_messages
SELECT id, seq, 'request', 1, '"hi"', now() FROM durably_runs, generate_series(0, 3) seq;
INSERT INTO durably_effects (run_id, response, call, tool_name, tool_call_id, args, policy,
                             on_doubt, state, asked, attempt, idempotency_key, result, error,
                             resolved_by, started_at, finished_at)
SELECT id, 0, 0, 't', 'c', '{{}}', 'once', 'ask',
       CASE state WHEN 'suspended' THEN 'in_doubt' ELSE 'done' END, state = 'suspended',
       1, 'k', NULL, NULL, NULL, now(), now()
FROM durably_runs;
UPDATE durably_effects SET state = 'awaiting', ask = 'approval', asked_at = now(),
                           expires_at = now() + make_interval(secs => run_id), on_expiry = 'wait'
WHERE asked;
INSERT INTO durably_decisions (run_id, response, call, decision, by, at)
SELECT id, 0, n, 'resolved', 'ann', now() FROM durably_runs, generate_series(0, 1) n;
INSERT INTO durably_signals (run_id, name, payload, by, sent_at)
SELECT id, 'x', '{{}}', 'ann', now() FROM durably_runs, generate_series(0, 1);
INSERT INTO durably_notices (run_id, response, call, kind, attempt, reason, made_at, due_at,
                             sent_at)
SELECT id, 0, 0, 'approval', 1, 'waiting', now(), now() + make_interval(secs => id),
       CASE WHEN state <> 'suspended' THEN now() END FROM durably_runs;
UPDATE durably_notices SET due_at = NULL WHERE sent_at IS NOT NULL;
INSERT INTO durably_attempts SELECT id, 1, 'w1', now(), now() FROM durably_runs;
INSERT INTO durably_events (run_id, kind, attempt, at)
SELECT id, 'e', 1, now() FROM durably_runs, generate_series(0, 3);
INSERT INTO durably_events (run_id, kind, attempt, data, at)
SELECT id, 'delta', 1, '{{"message": 4, "events": []}}', now()
FROM durably_runs, generate_series(0, 9) WHERE state = 'executing';
INSERT INTO durably_actions (at, by, action, run_key)
SELECT now() - make_interval(secs => id), 'ann', 'cancel', key FROM durably_runs;
INSERT INTO durably_budgets (scope, name, limits, changed_at)
SELECT scope, 't' || n, '{{}}', now()
FROM generate_series(0, 3999) n, unnest(ARRAY['tag', 'thread']) scope;
INSERT INTO durably_workers SELECT 'w' || n, 'w', 1, '{{}}', 30, now(), now(), now()
FROM generate_series(0, 19) n;
INSERT INTO oban_jobs (state, queue, worker, args, cancelled_at)
SELECT CASE WHEN id % 100 = 0 THEN 'cancelled' WHEN state = 'available' THEN 'available'
            ELSE 'completed' END::oban_job_state, queue, 'w', '{{}}', now()
FROM durably_runs;
UPDATE durably_runs SET job_id = id;
VACUUM ANALYZE;
"""

EVERYTHING = {"count_runs", "count_prunable", "list_workers", "prune_workers"}
"""Statements that count all runs, for a person who asks, or look at all workers, a few rows."""
EVERYTHING |= {"list_queue_settings", "list_budgets"}

TRANSFER = set(
    re.findall(
        r"^-- name: (\w+)",
        files("durably.ledger").joinpath("sql", "transfer.sql").read_text("utf-8"),
        re.MULTILINE,
    )
)
"""A transfer moves whole tables, once."""

VALUES: dict[str, Any] = {
    "run_id": 5000,
    "alive_at": "2026-03-01T12:00:00.000000Z",
    "key": "r5000",
    "queue": "agents",
    "state": "completed",
    "agent": "a",
    "tag": "t7",
    "before": 5000,
    "limit": 20,
    "after": 0,
    "seq": 1,
    "worker_id": "w1",
    "attempt": 1,
    "id": "w1",
    "fingerprint": "f",
    "seconds": 60.0,
    "older_than_seconds": float(RUNS - 50),
    "response": 0,
    "call": 0,
    "job_id": 7,
    "job_ids": [7, 8],
    "run_keys": ["r5000", "r5001"],
    "keys": '["new1", "new2"]',
    "inputs": '[[1, "{}"], [2, "{}"]]',
    "schema": "public",
    "runs_at_once": 3,
    "data": "{}",
    "event": "{}",
    "body": "{}",
    "args": "{}",
    "prompt": "{}",
    "meta": "{}",
    "tags": "[]",
    "usage": None,
    "output": "{}",
    "result": "{}",
    "waiting_on": "{}",
    "kind": "request",
    "policy": "once",
    "ask": "approval",
    "request": "{}",
    "within_seconds": 60.0,
    "on_expiry": "deny",
    "decision": "approved",
    "on_doubt": "ask",
    "asked": True,
    "told": True,
    "priority": 0,
    "max_attempts": 5,
    "delay_seconds": 0.0,
    "lease_seconds": 30.0,
    "pid": 1,
    "queues": "{}",
    "scheduled_at": None,
    "step": "",
    "parent_id": None,
    "tells_end": True,
    "budget": None,
    "until": None,
    "finished_at": "2026-03-01T12:00:00.000000Z",
    "payload": "{}",
    "scope": "tag",
    "limits": "{}",
    "requests": 1,
    "tokens": 100,
    "tool_calls": 1,
    "nanousd": 1000,
    "cost_nanousd": 1000,
    "notice_id": 5000,
    "tries": 1,
    "reason": "waiting",
    "taken_by": "[]",
    "stream": None,
    "message": 4,
    "last": 0,
    "by": "agent",
    "every": 3,
    "upto": 8000,
    "since": "2026-03-01T12:00:00.000000Z",
    "ids": "[7, 8]",
    "states": '["completed"]',
    "other_than": None,
    "began_seconds": -1.0,
    "ended_seconds": 0.0,
    "own_nanousd": 1000,
    "messages": 2,
    "alone": True,
    "seq_a": 8,
    "kind_a": "request",
    "body_a": "{}",
    "data_a": "{}",
    "seq_b": 9,
    "kind_b": "response",
    "body_b": "{}",
    "data_b": "{}",
    "outcomes": "[]",
    "events": "[]",
}
"""What stands for a statement's parameters; any other is the text ``x``."""


@pytest.fixture(scope="module")
def large(postgres: Postgres) -> Generator[psycopg.Connection[Any]]:
    """A ledger with many runs, of which most are finished."""
    with (
        postgres.database(template=postgres.migrated) as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        for statement in FILL.split(";\n"):
            connection.execute(statement.encode())
        yield connection


def literal(connection: psycopg.Connection[Any], value: object) -> str:
    return psycopg.sql.Literal(value).as_string(connection)


def test_every_statement_is_short_enough_for_psycopg_to_parse_it_once() -> None:
    """It keeps what it has parsed of texts of so many characters (`psycopg._queries`)."""
    assert max(map(len, statements("durably").values())) <= 4096


@pytest.mark.parametrize("plans", ["custom", "generic"])
@pytest.mark.parametrize("name", sorted(load_queries("postgres").keys() - EVERYTHING - TRANSFER))
def test_statement_finds_its_rows_by_index(
    large: psycopg.Connection[Any], name: str, plans: str
) -> None:
    """As it is planned for these parameters, and for any, as what is prepared may be."""
    plan = explain(large, name, plans)
    assert not re.findall(r"Seq Scan on (?:durably_(?!workers|queues)|oban_)\w+", plan), plan


@pytest.mark.parametrize("name", ["claim_runs", "next_due"])
def test_backlog_of_one_queue_costs_the_others_nothing(
    large: psycopg.Connection[Any], name: str
) -> None:
    plan = explain(large, name, "generic")
    for index in ("durably_runs_available", "durably_runs_due"):
        assert re.search(rf"(?:using|on) {index} .*\n\s*Index Cond: .*queue = \$", plan)


async def test_limit_holds_whatever_the_plan(migrated_url: str) -> None:
    """A subquery that is run once for each row finds other rows each time: those not yet locked."""
    name = migrated_url.rpartition("/")[2]
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        for way in ("hashjoin", "mergejoin", "hashagg", "material", "sort", "memoize"):
            connection.execute(f"ALTER DATABASE {name} SET enable_{way} = off".encode())
    clock = Clock()
    backend = PostgresBackend(migrated_url, clock)
    await backend.database.open()
    ledger = Ledger(backend, clock)
    await ledger.worker()
    for _ in range(7):
        await ledger.insert()
    for expected in (3, 3, 1, 0):
        claimed = await ledger.write(attempts.claim, "w1", "agents", 3)
        assert len(claimed) == expected
        for run in claimed:
            await ledger.write(attempts.stop, run.claim, Step())
    clock.advance(60)
    assert [await ledger.write(runs.prune, 1.0, None, 3) for _ in range(4)] == [3, 3, 1, 0]
    await backend.database.close()


def test_pruning_looks_only_at_what_is_old(large: psycopg.Connection[Any]) -> None:
    plan = explain(large, "prune_runs", "custom")
    assert re.search(r"using durably_runs_finished on durably_runs.*\n\s*Index Cond: .*<", plan)


def explain(connection: psycopg.Connection[Any], name: str, plans: str) -> str:
    text, names = statement_of(name)
    values = [VALUES.get(name, "x") for name in names]
    # As psycopg sends them: the server finds out what a text is.
    types = [TYPES.get(type(value), "unknown") for value in values]
    declared = f"({', '.join(types)})" if types else ""
    given = f"({', '.join(literal(connection, value) for value in values)})" if values else ""
    connection.execute(f"SET plan_cache_mode = force_{plans}_plan".encode())
    connection.execute(f"PREPARE asked{declared} AS {text}".encode())
    try:
        rows = connection.execute(f"EXPLAIN EXECUTE asked{given}".encode()).fetchall()
    finally:
        connection.execute("DEALLOCATE asked")
    return "\n".join(line for (line,) in rows)


TYPES = {int: "int8", float: "float8", bool: "bool"}


# --- writes


@pytest.fixture
async def alone(own_postgres: PostgresServer) -> AsyncGenerator[Ledger]:
    """A ledger on a server that nobody else writes to, not even the server itself."""
    with psycopg.connect(own_postgres.url(), autocommit=True) as connection:
        # The first change of a page after a checkpoint logs the whole page.
        for setting in ("autovacuum = off", "full_page_writes = off"):
            connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")
    clock = Clock()
    backend = PostgresBackend(own_postgres.url(), clock)
    await backend.database.migrate()
    yield Ledger(backend, clock)
    await backend.database.close()


async def test_step_writes_as_much_however_long_the_history(alone: Ledger) -> None:
    """On disk too: no history is written again."""
    run = await alone.executing()
    body = json.dumps("x" * 1000)
    written: list[int] = []
    for number in range(120):
        step = replace(step_of(number), messages=(message(number, body),))
        written.append(await bytes_written(alone, run, step))
    assert statistics.median(written[-40:]) <= statistics.median(written[:40]) + 200


async def test_step_writes_as_much_however_long_the_prompt(alone: Ledger) -> None:
    written: dict[int, float] = {}
    for size in (1_000, 10_000_000):
        run = await alone.claim(await alone.insert(prompt=json.dumps("x" * size)))
        first = Step(messages=(message(0, json.dumps("x" * size)),))
        await alone.write(steps.record_step, run.claim, first)
        steps_written = [await bytes_written(alone, run, step_of(n)) for n in range(20)]
        written[size] = statistics.median(steps_written)
    assert written[10_000_000] <= written[1_000] + 200
    assert written[10_000_000] < 10_000


async def bytes_written(ledger: Ledger, run: RunRecord, step: Step) -> int:
    """How much one step adds to the write-ahead log."""
    with ledger.backend.connect() as connection:
        here = "SELECT pg_current_wal_insert_lsn()"
        (before,) = connection.execute(here).fetchone()
        await ledger.write(steps.record_step, run.claim, step)
        (size,) = connection.execute(f"SELECT ({here}) - %s", (before,)).fetchone()
    assert size > 0
    return int(size)
