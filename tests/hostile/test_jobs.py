"""Jobs in Oban's own table with any args, executed by a real worker: each ends, and every other
goes on."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably import Durably
from durably.dispatch.requests import RunRequest
from support.clerk import Clerk, Jobs, make_app, until
from support.sample import examples

from .test_texts import JSON, TEXT

ODD: tuple[Any, ...] = (
    [],
    None,
    5,
    "text",
    {},
    {"key": 7},
    {"run_id": "x"},
    {"run_id": 10**30},
    {"run_id": -1},
    {"agent": "clerk"},
    {"agent": "nobody", "key": "n", "prompt": "x"},
    {"agent": "clerk", "prompt": {"a": [[[[]]]]}},
    {"agent": "clerk", "prompt": "x", "key": "k" * 100_000},
    {"agent": "clerk", "prompt": "x", "delay": 1e300},
    {"agent": "clerk", "prompt": "x", "scheduled_at": "9999-12-31T23:59:59-14:00"},
    {"agent": "clerk", "prompt": "x", "max_attempts": 10**30},
    {"agent": "clerk", "prompt": "x", "priority": -(10**30)},
    {"agent": "clerk", "prompt": "x", "queue": ""},
    {"agent": "clerk", "prompt": "x", "queue": "q" * 100_000},
    {"agent": "clerk", "prompt": "x", "thread": {"a": 1}},
    {"agent": "clerk", "prompt": "x", "budget": {"usd": "9" * 5000}},
    {"agent": "clerk", "prompt": "x", "tags": [["t"]], "meta": []},
)
FIELDS = st.sampled_from(sorted(RunRequest.model_fields))
ARGS = st.dictionaries(FIELDS | TEXT, JSON, max_size=5) | st.builds(
    lambda usual, odd: {"agent": "clerk", "prompt": "x"} | odd | usual,
    st.fixed_dictionaries({}, optional={"key": TEXT}),
    st.dictionaries(FIELDS, JSON, max_size=3),
)
OVER = ("completed", "discarded", "cancelled")


async def test_nothing_is_lost_whatever_jobs_say(wiped_url: str) -> None:
    jobs, made = Jobs(wiped_url), list[int]()
    clerk = Clerk()
    clerk.gate.set()

    def insert(args: Any) -> None:
        with suppress(psycopg.DataError):  # NaN, NUL, half characters: PostgreSQL takes none.
            made.append(jobs.insert(json.dumps(args)))

    for args in ODD:
        insert(args)

    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(160)
    )
    @given(ARGS)
    def insert_any(args: dict[str, Any]) -> None:
        insert(args)

    insert_any()
    assert len(made) > len(ODD)
    good = jobs.insert(json.dumps({"agent": "clerk", "key": "good", "prompt": "x"}))
    async with make_app(wiped_url, clerk) as app, app.worker(queues={"agents": 10}):
        await until(lambda: _state(jobs, good) == "completed", "the job that is well is done")
        assert await (await app.get("good")).result(timeout=300) == "answered"
        await until(lambda: not _under_way(jobs), "every job is over, or is for later")
        await _check_ends(app, jobs, made)


def _state(jobs: Jobs, job: int) -> str:
    return jobs.sql("SELECT state FROM oban_jobs WHERE id = %s", job)[0]["state"]


def _under_way(jobs: Jobs) -> list[dict[str, Any]]:
    """Jobs of this worker's queue that are due, or are executed."""
    return jobs.sql(
        "SELECT id, state, args, errors FROM oban_jobs WHERE queue = 'agents' AND ("
        "state IN ('available', 'executing') OR (state = 'retryable' AND scheduled_at <= now()))"
    )


async def _check_ends(app: Durably, jobs: Jobs, made: list[int]) -> None:
    for job in jobs.sql("SELECT * FROM oban_jobs WHERE id = ANY(%s)", made):
        said = str([error["error"] for error in job["errors"]])
        # A run that failed is shown to Oban as such, in the words of its error.
        assert "Traceback" not in said or "UnknownAgent" in said, (
            f"nothing was handled: {job['args']}: {said}"
        )
    for run in await app.runs(limit=5000):
        later = run.record.queue != "agents" or run.state == "scheduled"
        assert run.state.final or later, (run.key, run.state, run.record.error)
