"""What a dashboard asks of a large ledger: an overview, pages of a search, an inbox, a long run.

Run it with `make bench-web`, which starts a PostgreSQL server of the tests' own. Ledgers are filled
in bulk by SQL. A figure is the median of several looks; read what it costs beside a small ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from durably import Durably
from durably.ledger.columns import timestamp

LOOKS = 7
"""How often each question is asked."""

FILL_RUNS = """
INSERT INTO durably_runs (key, agent, queue, state, attempt, max_attempts, tags, usage, model,
                          tokens, cost_nanousd, own_nanousd, waited_ms, executed_ms, failures,
                          error, waiting_kind, scheduled_at, inserted_at, attempted_at, finished_at)
SELECT 'run-' || n, 'agent-' || n % 5, 'queue-' || n % 3,
       CASE WHEN n > {ended} THEN 'suspended' WHEN n % 10 = 0 THEN 'discarded' ELSE 'completed' END,
       1, 5, CASE n % 1000 WHEN 0 THEN '["rare"]' ELSE '["tenant"]' END,
       '{{"requests": 3, "input_tokens": 2100, "output_tokens": 300}}', 'openai:gpt-' || n % 4,
       2400, 12000000, 12000000, n * 7919 % 3000, n * 104729 % 60000, n % 10 / 9,
       CASE n % 10 WHEN 0 THEN 'the provider answered 500 to request ' || n END,
       CASE WHEN n > {ended} THEN 'effects' END,
       {at}, {at}, {at}, CASE WHEN n <= {ended} THEN {at} END
FROM {numbers};
"""

FILL_INPUTS = """
INSERT INTO durably_inputs (run_id, prompt)
SELECT id, '"Please help me with order #' || id || ', which has not arrived yet."'
FROM durably_runs;
"""

FILL_EFFECTS = """
INSERT INTO durably_effects (run_id, response, call, tool_name, tool_call_id, args, policy, state,
                             asked, attempt, idempotency_key, ask, started_at, asked_at)
SELECT id, 1, 0, 'refund', 'call_0', '{{"order": 1}}', 'once', 'awaiting', {yes}, 1, 'k',
       'approval', inserted_at, inserted_at
FROM durably_runs WHERE state = 'suspended';
"""

FILL_STEPS = """
INSERT INTO durably_runs (key, agent, queue, state, attempt, max_attempts, scheduled_at,
                          inserted_at, finished_at)
VALUES ('long', 'agent-0', 'queue-0', 'completed', 2, 5, {now}, {now}, {now});
INSERT INTO durably_attempts (run_id, attempt, worker_id, started_at, ended_at, outcome)
SELECT id, 1, 'w', {now}, {now}, 'lost' FROM durably_runs WHERE key = 'long';
INSERT INTO durably_attempts (run_id, attempt, worker_id, started_at, ended_at, outcome)
SELECT id, 2, 'w', {now}, {now}, 'completed' FROM durably_runs WHERE key = 'long';
INSERT INTO durably_messages (run_id, seq, kind, attempt, body, inserted_at)
SELECT r.id, n - 1, CASE n % 2 WHEN 1 THEN 'request' ELSE 'response' END, 1 + n / 501,
       CASE n % 2 WHEN 1 THEN '{request}' ELSE '{response}' END, {now}
FROM {numbers}, durably_runs r WHERE r.key = 'long';
INSERT INTO durably_effects (run_id, response, call, tool_name, tool_call_id, args, policy, state,
                             attempt, idempotency_key, result, started_at, finished_at)
SELECT run_id, seq, 0, 'look', 'call_0', '{{}}', 'once', 'done', attempt, 'k', '{{}}', inserted_at,
       inserted_at
FROM durably_messages WHERE kind = 'response';
"""

REQUEST = (
    '{"parts": [{"content": "' + "found something " * 20 + '", "tool_name": "look", '
    '"tool_call_id": "call_0", "part_kind": "tool-return"}], "kind": "request"}'
)
RESPONSE = (
    '{"parts": [{"content": "' + "thinking about it " * 20 + '", "part_kind": "text"}, '
    '{"tool_name": "look", "args": "{}", "tool_call_id": "call_0", "part_kind": "tool-call"}], '
    '"usage": {"input_tokens": 5000, "output_tokens": 100, "details": {}}, '
    '"model_name": "gpt-4o", "provider_name": "openai", "kind": "response"}'
)


# --- ledgers


def fill_sqlite(path: Path, ended: int, suspended: int, now: datetime) -> None:
    total = ended + suspended
    numbers = (
        "(WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < {})"
        " SELECT n FROM count)"
    )
    # The newest ended now, the others over the hour before.
    seconds = f"{now.timestamp()} - 3590.0 * ({total} - n) / {total}"
    at = f"strftime('%Y-%m-%dT%H:%M:%fZ', {seconds}, 'unixepoch')"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        scripts = [
            FILL_RUNS.format(ended=ended, at=at, numbers=numbers.format(total)),
            FILL_INPUTS,
            FILL_EFFECTS.format(yes=1),
            *_steps(f"'{timestamp(now)}'", numbers.format(1000)),
        ]
        for script in scripts:
            connection.execute(script)
        connection.execute("COMMIT")


def fill_postgres(url: str, ended: int, suspended: int, now: datetime) -> None:
    import psycopg

    total = ended + suspended
    at = f"to_timestamp({now.timestamp()} - 3590.0 * ({total} - n) / {total})"
    runs = FILL_RUNS.replace("'[\"rare\"]' ELSE", "'[\"rare\"]'::jsonb ELSE").replace(
        "'[\"tenant\"]' END", "'[\"tenant\"]'::jsonb END"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        scripts = [
            runs.format(ended=ended, at=at, numbers=f"generate_series(1::bigint, {total}) n"),
            FILL_INPUTS.replace("""'"Please""", """('"Please""").replace(
                """yet."'\n""", """yet."')::json\n"""
            ),
            FILL_EFFECTS.format(yes="TRUE"),
            *_steps(f"'{timestamp(now)}'::timestamptz", "generate_series(1, 1000) n"),
            "VACUUM ANALYZE",
        ]
        for script in scripts:
            connection.execute(script.encode())


def _steps(now: str, numbers: str) -> list[str]:
    script = FILL_STEPS.format(now=now, numbers=numbers, request=REQUEST, response=RESPONSE)
    if "timestamptz" in now:
        script = script.replace(f"'{RESPONSE}' END", f"'{RESPONSE}' END::json")
    return [part for part in script.split(";\n") if part.strip()]


@contextmanager
def ledger(dialect: str, ended: int, suspended: int) -> Generator[str]:
    """The URL of a ledger with so many runs."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        folder.chmod(0o755)  # A server that is started as root runs as somebody else.
        now = datetime.now(UTC) + timedelta(seconds=1)
        if dialect == "sqlite":
            url = f"sqlite:///{folder}/ledger.db"
            asyncio.run(_open(url))
            fill_sqlite(folder / "ledger.db", ended, suspended, now)
        else:
            from support.postgres_run import Run

            run = Run(folder / "servers", os.getpid())
            servers.callback(run.clean)
            url = servers.enter_context(run.postgres.database(template=run.postgres.migrated))
            fill_postgres(url, ended, suspended, now)
        yield url


async def _open(url: str) -> None:
    async with Durably(url):
        pass


# --- what is measured


type Question = Callable[[Durably], Awaitable[object]]


async def overview(app: Durably) -> None:
    """What the overview page asks."""
    await app.statistics(7200, by="agent")
    await app.workers()
    await app.queues(open_only=True)


async def timeline(app: Durably) -> None:
    steps = (await (await app.get("long")).timeline()).steps
    assert len(steps) == 500


async def longest_page(app: Durably, **filters: Any) -> float:
    """The slowest page of a search, in seconds, through all runs."""
    slowest, before, pages, found = 0.0, None, 0, 0
    while True:
        began = time.perf_counter()
        page = await app.search(before=before, **filters)
        slowest = max(slowest, time.perf_counter() - began)
        pages, found, before = pages + 1, found + len(page.runs), page.next_before
        if before is None or pages == 100:
            break
    print(f"    {filters}: {found} found on {pages} pages", flush=True)
    return slowest


QUESTIONS: dict[str, Question] = {
    "overview, by agent": overview,
    "statistics, of all": lambda app: app.statistics(7200),
    "first page of runs": lambda app: app.search(),
    "first page of an agent": lambda app: app.search(agent="agent-1", state="discarded"),
    "a page of the inbox": lambda app: app.inbox(limit=50),
    "timeline of 500 steps": timeline,
}


async def ask(url: str) -> dict[str, float]:
    """How long each question takes, in seconds."""
    async with Durably(url) as app:
        took: dict[str, float] = {}
        for name, question in QUESTIONS.items():
            times: list[float] = []
            for _ in range(LOOKS):
                began = time.perf_counter()
                await question(app)
                times.append(time.perf_counter() - began)
            took[name] = statistics.median(times)
        for filters in ({"key": "run-77"}, {"text": "no such text"}, {"tag": "rare", "limit": 500}):
            took[f"slowest page, {next(iter(filters))}"] = await longest_page(app, **filters)
        return took


def measure(dialect: str, sizes: list[tuple[int, int]]) -> None:
    results: list[dict[str, float]] = []
    for ended, suspended in sizes:
        print(f"{dialect}: {ended:,} runs ended within the hour, {suspended:,} wait", flush=True)
        with ledger(dialect, ended, suspended) as url:
            results.append(asyncio.run(ask(url)))
    print(f"{dialect}, milliseconds", " " * 17, *(f"{ended:>12,}" for ended, _ in sizes), " ratios")
    for name in results[0]:
        times = [result[name] * 1000 for result in results]
        ratios = " ".join(f"{later / times[0]:7.1f}" for later in times[1:])
        print(f"  {name:36}", *(f"{ms:12.1f}" for ms in times), ratios, flush=True)


def main() -> None:
    options: Any = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    options.add_argument("--database", choices=("sqlite", "postgres"), action="append")
    given = options.parse_args()
    for dialect in given.database or ("sqlite", "postgres"):
        measure(dialect, [(runs, runs // 10) for runs in given.runs])


if __name__ == "__main__":
    main()
