"""The model and the ledger are the same: what one does, the other does, on both databases."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durably.errors import LedgerError
from protocol.conformance import TOOLS_TABLE, Cover, Drift, Replay, follow
from protocol.model import POLICIES, Size, start
from protocol.promises import ACROSS_EVERY_STEP, IN_EVERY_STATE
from protocol.search import explore
from protocol.variants import VARIANTS, Variant
from support.ledgers import Clock, Ledger, PostgresBackend, SqliteBackend

EVERYTHING = os.environ.get("MODEL_TESTS") == "all"
SAMPLE = 6
"""On PostgreSQL `make test` takes one trace in so many: each of its commits waits for a disk."""


@pytest.fixture(params=["sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    """An open ledger, and a table that a transactional tool writes to."""
    clock = Clock()
    if request.param == "sqlite":
        backend = SqliteBackend(tmp_path / "ledger.db", clock)
    else:
        backend = PostgresBackend(request.getfixturevalue("wiped_url"), clock)
    await backend.database.open()
    with backend.connect() as connection:
        connection.execute(TOOLS_TABLE)
        connection.execute("DELETE FROM tool_writes")
        connection.commit()
    yield Ledger(backend, clock)
    await backend.database.close()


@pytest.mark.parametrize("policy", POLICIES)
async def test_ledger_does_what_the_model_does(ledger: Ledger, policy: str) -> None:
    cover = Cover()
    explored = explore(Size(((policy,),), faults=2 if EVERYTHING else 1), cover.seen)
    traces = cover.traces(explored)
    sampled = isinstance(ledger.backend, PostgresBackend) and not EVERYTHING
    for number, trace in enumerate(traces[:: SAMPLE if sampled else 1]):
        replay = Replay(ledger, explored.size, f"r{number}")
        await replay.begin()
        for before, action, after in (way := follow(explored.size, trace, explored.first)):
            try:
                await replay.take(before, action, after)
            except (Drift, LedgerError) as drift:
                drift.add_note("\n".join(str(taken) for _, taken, _ in way))
                raise
        for attempt in replay.claims:
            assert await replay.is_held_by(attempt) == after.ledger.holds(attempt)
