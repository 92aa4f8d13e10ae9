"""The model and the ledger are the same: what one does, the other does, on both databases."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durably.errors import LedgerError
from protocol.conformance import TOOLS_TABLE, Cover, Drift, Replay, comparable, follow
from protocol.model import POLICIES, Size, start
from protocol.promises import ACROSS_EVERY_STEP, IN_EVERY_STATE
from protocol.search import explore
from protocol.variants import VARIANTS, Variant
from support.ledgers import Backend, Clock, Ledger, PostgresBackend, SqliteBackend

EVERYTHING = os.environ.get("MODEL_TESTS") == "all"
SAMPLE = 6
"""On PostgreSQL `make test` takes one trace in so many: each of its commits waits for a disk."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Backend:
    if request.param == "sqlite":
        return SqliteBackend(tmp_path / "ledger.db", clock)
    return PostgresBackend(request.getfixturevalue("wiped_url"), clock)


@pytest.fixture
async def ledger(backend: Backend, clock: Clock) -> AsyncIterator[Ledger]:
    """An open ledger, and a table that a transactional tool writes to."""
    await backend.database.open()
    with backend.connect() as connection:
        connection.execute(TOOLS_TABLE)
        connection.commit()
    yield Ledger(backend, clock)
    with backend.connect() as connection:
        connection.execute("DROP TABLE tool_writes")
        connection.commit()
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


async def test_ledger_refuses_what_a_rule_forbids(ledger: Ledger) -> None:
    for variant in VARIANTS:
        if variant.in_ledger:
            await _departs_from_the_counterexample(ledger, variant)


async def _departs_from_the_counterexample(ledger: Ledger, variant: Variant) -> None:
    """The counterexample of a variant, tried on the real ledger: that goes another, sound way."""
    broken = explore(variant.size).broken
    assert broken is not None
    way = follow(variant.size, broken.trace, start(variant.size))
    replay = Replay(ledger, variant.size, variant.rule)
    await replay.begin()
    for before, action, after in way:
        was = await replay.look()
        accepted = await replay.accepted(before, action)
        now = await replay.look()
        if accepted != action.refused and now == comparable(after.ledger, now):
            continue
        assert accepted or now == was, "what is refused changes nothing"
        sound = after._replace(ledger=now._replace(lease=after.ledger.lease))
        assert all(holds(variant.size, sound) for holds in IN_EVERY_STATE)
        step = before._replace(ledger=was._replace(lease=before.ledger.lease))
        assert not accepted or all(holds(step, action, sound) for holds in ACROSS_EVERY_STEP)
        return
    pytest.fail(f"the real ledger goes the whole way to a broken promise:\n{broken}")
