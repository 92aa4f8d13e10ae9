"""The lifecycle table crossed with the ledger: every transition, state and attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from durably.errors import LeaseLost, TransitionRefused
from durably.ledger import attempts, reads, runs, steps, threads
from durably.ledger.sqlite.database import SqliteDatabase
from durably.ledger.written import NewMessage, Step
from durably.lifecycle import TRANSITIONS, RunState, allowed
from durably.records import Claim, RunRecord
from support.ledgers import LEASE_SECONDS, Ledger, new_run, stale

type Attempted = Callable[[Ledger, RunRecord, Claim], Awaitable[RunRecord | None]]

REFUSED = (LeaseLost, TransitionRefused)


async def _claim(ledger: Ledger, run: RunRecord, _: Claim) -> RunRecord | None:
    return await ledger.write(attempts.claim_one, "w1", run.id)


async def _claim_queue(ledger: Ledger, run: RunRecord, _: Claim) -> RunRecord | None:
    claimed = await ledger.write(attempts.claim, "w1", run.queue, 10)
    return claimed[0] if claimed else None


async def _rescue(ledger: Ledger, run: RunRecord, _: Claim) -> RunRecord | None:
    ledger.clock.advance(LEASE_SECONDS + 1)
    rescued = await ledger.write(attempts.rescue)
    return next((r for r in rescued if r.id == run.id), None)


async def _share(ledger: Ledger, run: RunRecord, _: Claim) -> RunRecord | None:
    ended = replace(run, key="another", state=RunState.COMPLETED, output='"done"')
    return await ledger.write(threads.share, run.id, ended)


async def _steered(ledger: Ledger, **options: Any) -> tuple[RunRecord, RunRecord]:
    """A run of a thread, executing, and one that steered it."""
    thread = f"t{ledger.backend.select('SELECT count(*) FROM durably_runs')[0][0]}"
    going = await ledger.executing(thread=thread, **options)
    message = await ledger.insert(thread=thread, on_busy="steer")
    steers = await ledger.read(threads.list_steers, thread, going.id)
    step = Step(messages=(NewMessage(0, "request", "{}", tuple(steers)),))
    await ledger.write(steps.record_step, going.claim, step)
    return going, await ledger.get(message)


WAYS: dict[str, list[Attempted]] = {
    "claim": [_claim, _claim_queue],
    "complete": [lambda ledger, _, c: ledger.write(attempts.complete, c, '"x"', Step())],
    "discard": [lambda ledger, _, c: ledger.write(attempts.discard, c, "no", "tb", Step())],
    "fail": [lambda ledger, _, c: ledger.write(attempts.fail, c, "no", "tb", 9.0, Step())],
    "suspend": [lambda ledger, _, c: ledger.write(attempts.suspend, c, "change", {}, Step())],
    "hand_back": [lambda ledger, _, c: ledger.write(attempts.hand_back, c, Step())],
    "stop": [lambda ledger, _, c: ledger.write(attempts.stop, c, Step())],
    "cancel": [lambda ledger, run, _: ledger.write(runs.cancel, run.key, "me")],
    "wake": [lambda ledger, run, _: ledger.write(runs.wake, run.key, "me")],
    "share": [_share],
    "rescue": [_rescue],
    "revive": [lambda ledger, run, _: ledger.write(runs.revive, run.key, "me")],
}


def _cross() -> Iterator[tuple[str, int, RunState, str]]:
    for name, transition in TRANSITIONS.items():
        for variant in range(len(WAYS[name])):
            for state in RunState:
                for attempt in ("current", "stale") if transition.fenced else ("current",):
                    yield name, variant, state, attempt


@pytest.mark.parametrize(("name", "variant", "state", "attempt"), list(_cross()))
async def test_ledger_accepts_exactly_the_transitions_of_the_table(
    ledger: Ledger, name: str, variant: int, state: RunState, attempt: str
) -> None:
    run = await ledger.in_state(state)
    if name == "share" and state is RunState.SUSPENDED:
        _, run = await _steered(ledger)
    assert run.state is state
    claim = run.claim if attempt == "current" else stale(run)
    before = ledger.dump()

    moved: RunRecord | None = None
    refused = False
    try:
        moved = await WAYS[name][variant](ledger, run, claim)
    except REFUSED:
        refused = True

    if allowed(name, state) and attempt == "current":
        assert moved is not None
        assert moved.state in TRANSITIONS[name].targets
        assert moved == await ledger.get(run)
    else:
        assert moved is None
        assert ledger.dump() == before
        assert refused or name in ("claim", "rescue", "share"), "a refusal says so"


async def test_every_target_of_the_table_is_reached(ledger: Ledger) -> None:
    """The other direction: the table promises no state that the ledger never brings about."""
    reached: dict[str, set[RunState]] = {name: set() for name in TRANSITIONS}
    for name, transition in TRANSITIONS.items():
        for source in transition.sources:
            for max_attempts in (2 if source is RunState.RETRYABLE else 1, 5):
                for cancelled in (False, True):
                    if name == "share":
                        continue
                    run = await ledger.in_state(source, max_attempts=max_attempts)
                    if cancelled and source is RunState.EXECUTING:
                        await ledger.write(runs.cancel, run.key, "me")
                    moved = await WAYS[name][0](ledger, run, run.claim)
                    assert moved is not None
                    reached[name].add(moved.state)
    reached["wake"].add((await _woken_before_it_is_due(ledger)).state)
    reached["revive"].add((await _revived_behind_another(ledger)).state)
    for end in (RunState.COMPLETED, RunState.DISCARDED, RunState.CANCELLED):
        going, message = await _steered(ledger)
        ended = await WAYS[ENDS[end]][0](ledger, going, going.claim)
        assert ended is not None
        assert await ledger.write(threads.release, ended.thread)
        reached["share"].add((await ledger.get(message)).state)
    assert reached == {name: set(t.targets) for name, t in TRANSITIONS.items()}


ENDS = {
    RunState.COMPLETED: "complete",
    RunState.DISCARDED: "discard",
    RunState.CANCELLED: "stop",
}


async def _woken_before_it_is_due(ledger: Ledger) -> RunRecord:
    first = await ledger.executing(thread="late")
    second = await ledger.insert(thread="late", delay_seconds=3600.0)
    await ledger.write(attempts.stop, first.claim, Step())
    await ledger.write(threads.release, "late")
    return await ledger.get(second)


async def _revived_behind_another(ledger: Ledger) -> RunRecord:
    await ledger.executing(thread="long")
    second = await ledger.insert(thread="long")
    await ledger.write(runs.cancel, second.key, "me")
    return await ledger.write(runs.revive, second.key, "me")


def test_every_transition_is_covered() -> None:
    assert WAYS.keys() == TRANSITIONS.keys()


# --- what counts


async def test_suspending_and_handing_back_spend_no_attempt(ledger: Ledger) -> None:
    run = await ledger.insert(max_attempts=1)
    for _ in range(3):
        run = await ledger.claim(run)
        run = await ledger.write(attempts.suspend, run.claim, "change", {}, Step())
        run = await ledger.write(runs.wake, run.key, "me")
        run = await ledger.claim(run)
        run = await ledger.write(attempts.hand_back, run.claim, Step())
    assert (run.state, run.attempt, run.failures, run.crashes) == (RunState.AVAILABLE, 6, 0, 0)


async def test_run_is_discarded_at_max_attempts_failures(ledger: Ledger) -> None:
    run = await ledger.insert(max_attempts=3)
    for failures in (1, 2, 3):
        run = await ledger.claim(run)
        run = await ledger.write(attempts.fail, run.claim, f"boom {failures}", "", 0.0, Step())
        assert (run.attempt, run.failures, run.crashes) == (failures, failures, 0)
        assert run.state is (RunState.DISCARDED if failures == 3 else RunState.RETRYABLE)
        assert (run.finished_at is not None) == run.state.final
    assert run.error == "boom 3"


async def test_run_is_discarded_at_max_attempts_crashes(ledger: Ledger) -> None:
    run = await ledger.insert(max_attempts=3)
    for crashes in (1, 2, 3):
        await ledger.claim(run)
        ledger.clock.advance(LEASE_SECONDS + 1)
        (run,) = await ledger.write(attempts.rescue)
        assert (run.attempt, run.failures, run.crashes) == (crashes, 0, crashes)
        assert run.state is (RunState.DISCARDED if crashes == 3 else RunState.AVAILABLE)
    assert run.error == "The worker died in 3 attempts; max_attempts is 3."


async def test_failures_and_crashes_are_limited_apart(ledger: Ledger) -> None:
    run = await ledger.insert(max_attempts=2)
    run = await ledger.claim(run)
    run = await ledger.write(attempts.fail, run.claim, "boom", "", 0.0, Step())
    await ledger.claim(run)
    ledger.clock.advance(LEASE_SECONDS + 1)
    (run,) = await ledger.write(attempts.rescue)
    assert (run.state, run.failures, run.crashes) == (RunState.AVAILABLE, 1, 1)


async def test_revive_starts_counting_anew_but_not_the_fencing_token(ledger: Ledger) -> None:
    run = await ledger.in_state(RunState.DISCARDED, max_attempts=1)
    revived = await ledger.write(runs.revive, run.key, "me")
    assert (revived.failures, revived.crashes, revived.error) == (0, 0, None)
    assert (revived.attempt, revived.finished_at) == (run.attempt, None)


async def test_cancel_of_an_executing_run_only_asks_it_to_stop(ledger: Ledger) -> None:
    run = await ledger.executing()
    asked = await ledger.write(runs.cancel, run.key, "me")
    assert asked.state is RunState.EXECUTING
    assert asked.cancel_requested_at is not None
    assert asked.claim == run.claim


async def test_cancel_asked_of_a_dead_worker_is_carried_out_by_rescue(ledger: Ledger) -> None:
    run = await ledger.executing(max_attempts=1)
    await ledger.write(runs.cancel, run.key, "me")
    ledger.clock.advance(LEASE_SECONDS + 1)
    (rescued,) = await ledger.write(attempts.rescue)
    assert rescued.state is RunState.CANCELLED


@pytest.mark.parametrize("name", ["fail", "suspend", "hand_back"])
async def test_cancel_holds_however_the_attempt_ends(ledger: Ledger, name: str) -> None:
    """An attempt that ends in another way before it learns of the cancel does not undo it."""
    run = await ledger.executing()
    await ledger.write(runs.cancel, run.key, "me")
    moved = await WAYS[name][0](ledger, run, run.claim)
    assert moved is not None
    assert moved.state is RunState.CANCELLED
    assert moved.finished_at is not None


async def test_completing_wins_over_a_cancel_that_came_too_late(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.write(runs.cancel, run.key, "me")
    completed = await ledger.write(attempts.complete, run.claim, '"x"', Step())
    assert (completed.state, completed.output) == (RunState.COMPLETED, '"x"')


async def test_revived_run_is_not_cancelled_again(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.write(runs.cancel, run.key, "me")
    await ledger.write(attempts.stop, run.claim, Step())
    revived = await ledger.write(runs.revive, run.key, "me")
    assert revived.cancel_requested_at is None


async def test_rescue_leaves_the_runs_of_live_workers_alone(ledger: Ledger) -> None:
    """Health, not age: a heartbeat keeps a run however long its step takes."""
    alive = await ledger.executing("alive")
    dead = await ledger.executing("dead")
    for _ in range(10):
        ledger.clock.advance(LEASE_SECONDS / 2)
        await ledger.worker("alive")
    assert [r.key for r in await ledger.write(attempts.rescue)] == [dead.key]
    assert (await ledger.get(alive)).claim == alive.claim


async def test_runs_of_a_worker_that_nobody_knows_are_rescued(ledger: Ledger) -> None:
    run = await ledger.insert()
    await ledger.write(attempts.claim_one, "never registered", run.id)
    assert await ledger.read(attempts.count_orphans) == 1
    assert [r.key for r in await ledger.write(attempts.rescue)] == [run.key]
    assert await ledger.read(attempts.count_orphans) == 0


async def test_each_attempt_leaves_one_row_that_says_how_it_ended(ledger: Ledger) -> None:
    run = await ledger.claim(await ledger.insert(max_attempts=9))
    run = await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))
    await ledger.write(attempts.fail, run.claim, "boom", "traceback", 0.0, Step())
    run = await ledger.claim(run)
    ledger.clock.advance(LEASE_SECONDS + 1)
    (run,) = await ledger.write(attempts.rescue)
    run = await ledger.claim(run)
    await ledger.write(attempts.complete, run.claim, '"x"', Step())
    rows = ledger.backend.select(
        "SELECT attempt, outcome, error, traceback, ended_at IS NULL FROM durably_attempts"
        " ORDER BY attempt"
    )
    lost = "The worker's lease ended before the attempt did."
    assert rows == [
        (1, "handed_back", None, None, 0),
        (2, "failed", "boom", "traceback", 0),
        (3, "lost", lost, None, 0),
        (4, "completed", None, None, 0),
    ]


async def test_every_transition_leaves_an_event(ledger: Ledger) -> None:
    run = await ledger.in_state(RunState.SUSPENDED)
    await ledger.write(runs.wake, run.key, "me")
    run = await ledger.claim(run)
    run = await ledger.write(attempts.fail, run.claim, "boom", "", 0.0, Step())
    await ledger.write(runs.cancel, run.key, "me")
    await ledger.write(runs.revive, run.key, "me")
    kinds = [kind for kind in await ledger.event_kinds(run) if kind != "effect"]
    first = ["enqueued", "claimed", "handed_back", "claimed", "suspended", "woken"]
    assert kinds == [*first, "claimed", "failed", "cancelled", "revived"]


async def test_pause_before_a_retry_counts_from_the_end_of_the_attempt(tmp_path: Path) -> None:
    """All that one operation writes happens at one time, by the real clock too."""
    database = SqliteDatabase(tmp_path / "ledger.db")
    await database.open()
    await database.write(runs.insert, new_run("r"))
    (run,) = await database.write(attempts.claim, "w1", "agents", 1)
    failed = await database.write(attempts.fail, run.claim, "no", "", 60.0, Step())
    (attempt,) = await database.read(reads.list_attempts, run.id)
    assert attempt.ended_at is not None
    assert failed.scheduled_at - attempt.ended_at == timedelta(seconds=60)
    await database.close()
