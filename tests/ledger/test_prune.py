"""Pruning: old final runs go with everything that belongs to them; nothing else does."""

from __future__ import annotations

import pytest

from durably.ledger import attempts, runs, workers
from durably.ledger.operations import execute
from durably.ledger.written import Step
from durably.lifecycle import RunState
from durably.records import RunRecord
from support.ledgers import TABLES, Ledger, done, message

OF_A_RUN = [t for t in TABLES if t not in ("runs", "workers", "queues", "budgets", "actions")]
NUMBERED = ("events", "decisions", "signals", "notices")
"""Tables with an id of their own before the run's."""
DAY = 24 * 3600.0


async def keys(ledger: Ledger) -> set[str]:
    return {key for (key,) in ledger.backend.select("SELECT key FROM durably_runs")}


async def orphans(ledger: Ledger, table: str) -> list[tuple[object, ...]]:
    """Rows of a table whose run is gone."""
    gone = "run_id NOT IN (SELECT id FROM durably_runs)"
    return ledger.backend.select(f"SELECT * FROM durably_{table} WHERE {gone}")


async def one_in_each_state(ledger: Ledger) -> None:
    """Each with a decision, a signal and a notice; final ones with a message and an effect too."""
    for state in RunState:
        if not state.final:
            await decided(ledger, await ledger.in_state(state, key=str(state)))
            continue
        run = await ledger.executing(key=str(state))
        await decided(ledger, run)
        step = Step(messages=(message(0),), outcomes=(done(),))
        match state:
            case RunState.COMPLETED:
                await ledger.write(attempts.complete, run.claim, '"x"', step)
            case RunState.DISCARDED:
                await ledger.write(attempts.discard, run.claim, "no", "", step)
            case _:
                await ledger.write(attempts.stop, run.claim, step)


async def decided(ledger: Ledger, run: RunRecord) -> None:
    what: dict[str, object] = {"decision": "resolved", "by": "ann", "note": "", "step": ""}
    what |= {"response": 0, "call": 0, "args_before": "{}", "args_after": None}
    await ledger.write(execute, "insert_decision", run_id=run.id, **what)
    place: dict[str, object] = {"response": 0, "call": 0, "step": ""}
    why = {"kind": "approval", "attempt": 1, "reason": "waiting"}
    await ledger.write(execute, "insert_notice", run_id=run.id, **place, **why)
    sent: dict[str, object] = {"name": "go", "payload": "1", "by": "ann", "signal_id": None}
    await ledger.write(execute, "insert_signal", run_id=run.id, **sent)


async def test_only_old_final_runs_are_pruned(ledger: Ledger) -> None:
    await one_in_each_state(ledger)
    ledger.clock.advance(2 * DAY)
    recent = {"recent " + state for state in ("completed", "discarded", "cancelled")}
    for key in sorted(recent):
        await ledger.in_state(RunState(key.removeprefix("recent ")), key=key)
    assert await ledger.write(runs.prune, DAY, None, 100) == 3
    assert await keys(ledger) == recent | {str(state) for state in RunState if not state.final}


async def test_pruned_run_leaves_nothing_behind(ledger: Ledger) -> None:
    await one_in_each_state(ledger)
    ledger.clock.advance(2 * DAY)
    before = ledger.dump()
    assert all(before[table] for table in OF_A_RUN)
    await ledger.write(runs.prune, DAY, None, 100)
    for table in OF_A_RUN:
        assert await orphans(ledger, table) == []
    kept = {row[0] for row in ledger.dump()["runs"]}
    for table in OF_A_RUN:
        column = 1 if table in NUMBERED else 0
        of_kept = [row for row in before[table] if row[column] in kept]
        assert ledger.dump()[table] == of_kept, "what belongs to other runs is as it was"


async def test_pruning_can_be_limited_to_one_state(ledger: Ledger) -> None:
    await one_in_each_state(ledger)
    ledger.clock.advance(2 * DAY)
    assert await ledger.write(runs.prune, DAY, "discarded", 100) == 1
    assert await keys(ledger) == {str(s) for s in RunState} - {"discarded"}


async def test_pruning_by_a_state_that_is_not_final_deletes_nothing(ledger: Ledger) -> None:
    await one_in_each_state(ledger)
    ledger.clock.advance(2 * DAY)
    assert await ledger.write(runs.prune, DAY, "suspended", 100) == 0


async def test_pruning_goes_in_batches_oldest_first(ledger: Ledger) -> None:
    for n in range(5):
        await ledger.in_state(RunState.COMPLETED, key=f"r{n}")
        ledger.clock.advance(1)
    ledger.clock.advance(DAY)
    assert await ledger.write(runs.prune, DAY - 10, None, 2) == 2
    assert await keys(ledger) == {"r2", "r3", "r4"}


async def test_revived_run_is_not_old(ledger: Ledger) -> None:
    run = await ledger.in_state(RunState.CANCELLED)
    ledger.clock.advance(2 * DAY)
    await ledger.write(runs.revive, run.key, "me")
    assert await ledger.write(runs.prune, DAY, None, 100) == 0


@pytest.mark.parametrize("age", [0.5, 2.0])
async def test_dead_workers_are_forgotten_when_they_are_old(ledger: Ledger, age: float) -> None:
    await ledger.worker("dead", lease_seconds=30.0)
    ledger.clock.advance(age * DAY)
    await ledger.worker("alive")
    await ledger.write(workers.prune, DAY)
    known = {name for (name,) in ledger.backend.select("SELECT id FROM durably_workers")}
    assert known == ({"dead", "alive"} if age < 1 else {"alive"})
