"""Races on PostgreSQL: whoever comes second waits, and sees what the first one did.

Each is run in slow motion: one transaction stops right before its commit, until the other one is
through or waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from durably.errors import RunNotFound, ThreadBusy, TransitionRefused
from durably.ledger import attempts, decisions, evidence, reads, runs, steps, threads
from durably.ledger.operations import Operation
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.written import CallOutcome, NewMessage, Step, ToolCall
from durably.lifecycle import EffectState, RunState
from durably.records import Claim, Event, RunRecord
from support.ledgers import (
    LEASE_SECONDS,
    PATIENCE_SECONDS,
    Ledger,
    PostgresBackend,
    done,
    new_run,
    tool_call,
)
from support.races import paused, second

ROUNDS = 30
DAY = 24 * 3600.0


# --- nobody is left asleep

CALLS = (tool_call(0, 0), tool_call(0, 1))


async def asked(ledger: Ledger, *calls: ToolCall) -> tuple[RunRecord, Claim]:
    """A run that waits for people because of calls in doubt; and the claim that made the calls."""
    run = await ledger.executing()
    for call in calls:
        await ledger.started(run, call)
    made = run.claim
    run = await ledger.claim(await ledger.write(attempts.hand_back, made, Step()))
    return await ledger.write(*suspending(run, *calls)), made


def suspending(run: RunRecord, *calls: ToolCall) -> tuple[Any, ...]:
    outcomes = tuple(CallOutcome(call, EffectState.IN_DOUBT, asked=True) for call in calls)
    on: dict[str, object] = {"effects": [call.position.call_id for call in calls]}
    return attempts.suspend, run.claim, "effects", on, Step(outcomes=outcomes)


def resolving(run: RunRecord, call: ToolCall, by: str = "ann") -> tuple[Any, ...]:
    decision = (EffectState.DONE, '{"return_value": 2}', None)
    return decisions.resolve, run.key, call.position.call_id, *decision, by, ""


def proving(claim: Claim, call: ToolCall) -> tuple[Any, ...]:
    return evidence.settle_late, claim, done(call)


def denying(claim: Claim, call: ToolCall) -> tuple[Any, ...]:
    return evidence.withdraw_late, claim, call, "not sent"


WAYS: dict[str, Callable[[RunRecord, Claim, ToolCall], tuple[Any, ...]]] = {
    "person": lambda run, _, call: resolving(run, call),
    "evidence": lambda _, claim, call: proving(claim, call),
    "evidence that nothing happened": lambda _, claim, call: denying(claim, call),
}


@pytest.mark.parametrize("one", WAYS)
@pytest.mark.parametrize("two", WAYS)
async def test_last_two_calls_settled_at_the_same_instant_wake_the_run(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, one: str, two: str
) -> None:
    run, made = await asked(ledger, *CALLS)
    pause = await paused(ledger, *WAYS[one](run, made, CALLS[0]))
    task = await second(other, pg, *WAYS[two](run, made, CALLS[1]))
    await pause.end()
    await task
    assert (await ledger.get(run)).state is RunState.AVAILABLE


async def test_two_people_who_decide_together_always_wake_the_run(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    """At full speed, many times."""
    for _ in range(ROUNDS):
        run, _ = await asked(ledger, *CALLS)
        await asyncio.gather(
            ledger.write(*resolving(run, CALLS[0])), other.write(*resolving(run, CALLS[1]))
        )
        assert (await ledger.get(run)).state is RunState.AVAILABLE


@pytest.mark.parametrize("decision_first", [True, False])
async def test_decision_while_the_attempt_suspends_wakes_the_run(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, decision_first: bool
) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    run = await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))
    writes = [suspending(run, tool_call()), resolving(run, tool_call())]
    one, two = reversed(writes) if decision_first else writes
    pause = await paused(ledger, *one)
    task = await second(other, pg, *two)
    await pause.end()
    await task
    assert (await ledger.get(run)).state is RunState.AVAILABLE


async def test_of_two_who_settle_one_call_the_second_is_told_who_was_first(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    run, _ = await asked(ledger, tool_call())
    pause = await paused(ledger, *resolving(run, tool_call(), "ann"))
    task = await second(other, pg, *resolving(run, tool_call(), "bob"))
    await pause.end()
    with pytest.raises(TransitionRefused, match="settled by ann"):
        await task
    assert pg.select("SELECT resolved_by FROM durably_effects") == [("ann",)]


# --- events

DOUBTED, BEGUN, MADE = tool_call(1, 0), tool_call(1, 1), tool_call(1, 2)

WRITES: dict[str, Callable[[RunRecord, Claim], tuple[Any, ...]]] = {
    "step": lambda run, _: (steps.record_step, run.claim, Step(events=(("step", {}),))),
    "outcome": lambda run, _: (steps.record_outcome, run.claim, done(BEGUN)),
    "doubt": lambda run, _: (
        steps.record_doubt,
        run.claim,
        CallOutcome(DOUBTED, EffectState.IN_DOUBT, asked=True),
    ),
    "withdraw": lambda run, _: (evidence.withdraw_intent, run.claim, BEGUN, "not sent"),
    "withdraw late": lambda _, old: denying(old, DOUBTED),
    "resolve": lambda run, _: resolving(run, DOUBTED),
    "cancel": lambda run, _: (runs.cancel, run.key, "ann"),
    "hand back": lambda run, _: (attempts.hand_back, run.claim, Step()),
    "complete": lambda run, _: (attempts.complete, run.claim, '"x"', Step()),
}


@pytest.mark.parametrize("evidence_first", [True, False])
@pytest.mark.parametrize("name", WRITES)
async def test_events_of_a_run_become_visible_in_the_order_of_their_ids(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, name: str, evidence_first: bool
) -> None:
    """Who watches remembers the last id: an event that came later with a smaller one is missed."""
    old = await ledger.executing()
    for call in (DOUBTED, MADE):
        await ledger.started(old, call)
    run = await ledger.claim(await ledger.write(attempts.hand_back, old.claim, Step()))
    await ledger.started(run, BEGUN)
    seen = await ledger.read(reads.list_events, run.id, 0, 1000)

    async def watch(seen: list[Event]) -> list[Event]:
        return seen + await other.read(reads.list_events, run.id, seen[-1].id, 1000)

    writes = [WRITES[name](run, old.claim), proving(old.claim, MADE)]
    one, two = reversed(writes) if evidence_first else writes
    pause = await paused(ledger, *one)
    task = await second(other, pg, *two)
    before = len(seen)
    seen = await watch(seen)
    await pause.end()
    await task
    seen = await watch(seen)
    assert len(seen) >= before + 2
    assert seen == await ledger.read(reads.list_events, run.id, 0, 1000)


async def test_watcher_of_a_run_that_many_write_about_misses_nothing(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    """At full speed: tools of several attempts report while a person decides."""
    run = await ledger.executing()
    seen: list[Event] = []

    async def watch() -> None:
        after = seen[-1].id if seen else 0
        seen.extend(await ledger.read(reads.list_events, run.id, after, 1000))

    async def write(database: Ledger | PostgresDatabase, name: str) -> None:
        for n in range(ROUNDS):
            step = Step(events=((f"{name}-{n}", {}),))
            await database.write(steps.record_step, run.claim, step)
            await database.write(lambda n=n: evidence.settle_late(run.claim, done(tool_call(n))))

    writing = asyncio.gather(*(write(d, f"w{n}") for n, d in enumerate([ledger, other, other])))
    while not writing.done():
        await watch()
    await writing
    await watch()
    assert seen == await ledger.read(reads.list_events, run.id, 0, 1000)
    assert len(seen) > 3 * ROUNDS


# --- claims


async def test_run_that_is_cancelled_and_claimed_at_the_same_instant_is_cancelled(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    run = await ledger.insert()
    await ledger.worker()
    pause = await paused(ledger, runs.cancel, run.key, "me")
    claiming = await second(other, pg, attempts.claim_one, "w1", run.id)
    assert await other.write(attempts.claim, "w1", "agents", 10) == []
    await pause.end()
    assert await claiming is None
    assert (await ledger.get(run)).state is RunState.CANCELLED


async def test_run_that_is_claimed_and_cancelled_at_the_same_instant_is_asked_to_stop(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    run = await ledger.insert()
    await ledger.worker()
    pause = await paused(ledger, attempts.claim_one, "w1", run.id)
    cancelling = await second(other, pg, runs.cancel, run.key, "me")
    await pause.end()
    assert (await cancelling).state is RunState.EXECUTING
    (held,) = await ledger.read(lambda: held_by("w1"))
    assert held == (run.id, True)


def held_by(worker_id: str) -> Operation[list[tuple[int, bool]]]:
    from durably.ledger import workers

    found = yield from workers.held_runs(worker_id)
    return [(held.run_id, held.cancel_requested) for held in found]


async def test_claim_passes_over_what_another_one_is_claiming(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    first, after = await ledger.insert(), await ledger.insert()
    pause = await paused(ledger, attempts.claim, "w1", "agents", 1)
    claimed = await asyncio.wait_for(
        other.write(attempts.claim, "w2", "agents", 1), PATIENCE_SECONDS
    )
    assert [run.key for run in claimed] == [after.key], "at once, without waiting"
    assert [run.key for run in await pause.end()] == [first.key]


# --- enqueuing


async def test_twins_at_the_same_instant_are_one_run(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    twin = {"fingerprint": "f", "unique_seconds": 60.0}
    pause = await paused(ledger, runs.insert, new_run("one", **twin))
    task = await second(other, pg, runs.insert, new_run("two", **twin))
    (first, made), (found, also_made) = await pause.end(), await task
    assert (made, also_made) == (True, False)
    assert found.key == first.key == "one"


async def test_many_who_enqueue_twins_at_once_get_one_run(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    for turn in range(5):
        told = await asyncio.gather(
            *(
                database.write(
                    runs.insert,
                    new_run(f"{turn}.{n}", fingerprint=f"f{turn}", unique_seconds=60.0),
                )
                for n, database in enumerate([ledger, other] * 6)
            )
        )
        assert len({run.key for run, _ in told}) == 1
        assert sum(made for _, made in told) == 1


@pytest.mark.parametrize("committed", [True, False])
async def test_key_that_two_enqueue_at_the_same_instant_is_one_run(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, committed: bool
) -> None:
    """Or the second one's, if the first is rolled back."""
    with pg.connect() as connection:
        await ledger.database.run_on(connection, runs.insert(new_run("k")))
        task = await second(other, pg, runs.insert, new_run("k"))
        assert not task.done()
        if committed:
            connection.commit()
        else:
            connection.rollback()
        run, made = await task
    assert (run.key, made) == ("k", not committed)
    assert pg.select(
        "SELECT count(*) FROM durably_runs r JOIN durably_inputs ON run_id = r.id"
    ) == [(1,)]


# --- rescue and prune


async def orphans(ledger: Ledger, count: int) -> list[RunRecord]:
    """Runs whose worker is dead."""
    found = [await ledger.executing() for _ in range(count)]
    ledger.clock.advance(LEASE_SECONDS + 1)
    return found


async def test_rescue_passes_over_a_run_that_is_written_about_and_takes_it_later(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    held, free = await orphans(ledger, 2)
    pause = await paused(ledger, steps.record_step, held.claim, Step(events=(("alive", {}),)))
    rescued = await asyncio.wait_for(other.write(attempts.rescue), PATIENCE_SECONDS)
    assert [run.key for run in rescued] == [free.key], "at once, without waiting"
    await pause.end()
    assert [run.key for run in await other.write(attempts.rescue)] == [held.key]


async def test_two_who_rescue_at_the_same_instant_count_one_crash(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    found = await orphans(ledger, 3)
    pause = await paused(ledger, attempts.rescue)
    assert await asyncio.wait_for(other.write(attempts.rescue), PATIENCE_SECONDS) == []
    assert len(await pause.end()) == 3
    assert {(await ledger.get(run)).crashes for run in found} == {1}


async def test_run_that_is_being_revived_is_not_pruned(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    run = await ledger.in_state(RunState.CANCELLED)
    ledger.clock.advance(2 * DAY)
    pause = await paused(ledger, runs.revive, run.key, "me")
    pruned = await asyncio.wait_for(other.write(runs.prune, DAY, None, 10), PATIENCE_SECONDS)
    assert pruned == 0
    assert (await pause.end()).state is RunState.AVAILABLE
    assert (await ledger.get(run)).state is RunState.AVAILABLE


async def test_run_that_is_being_pruned_is_not_revived(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    run = await ledger.in_state(RunState.CANCELLED)
    ledger.clock.advance(2 * DAY)
    pause = await paused(ledger, runs.prune, DAY, None, 10)
    reviving = await second(other, pg, runs.revive, run.key, "me")
    assert await pause.end() == 1
    with pytest.raises(RunNotFound):
        await reviving


async def test_revive_and_prune_at_full_speed_leave_a_run_whole_or_gone(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend
) -> None:
    for _ in range(ROUNDS):
        run = await ledger.in_state(RunState.CANCELLED)
        ledger.clock.advance(2 * DAY)
        told = await asyncio.gather(
            ledger.write(runs.revive, run.key, "me"),
            other.write(runs.prune, DAY, None, 10),
            return_exceptions=True,
        )
        revived = isinstance(told[0], RunRecord)
        assert told[1] == int(not revived)
        kept = f"SELECT count(*) FROM durably_inputs WHERE run_id = {run.id}"
        assert pg.select(kept) == [(int(revived),)]
        if revived:
            await ledger.write(runs.cancel, run.key, "me")
            ledger.clock.advance(2 * DAY)
            await ledger.write(runs.prune, DAY, None, 10)


# --- a thread's line

T = "customer-7"


async def in_thread(ledger: Ledger, *keys: str) -> list[RunRecord]:
    """The first executing, the others in line."""
    line = [await ledger.insert(key, thread=T) for key in keys]
    return [await ledger.claim(line[0]), *line[1:]]


def joining(key: str, **options: Any) -> tuple[Any, ...]:
    return runs.insert, new_run(key, thread=T, **options)


async def released(database: PostgresDatabase) -> None:
    while await database.write(threads.release, T):
        continue


async def test_run_that_joins_a_line_while_its_first_run_ends_is_not_stranded(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend
) -> None:
    (first,) = await in_thread(ledger, "first")
    joined = await paused(ledger, *joining("new"))  # It has seen the first run going.
    await other.write(attempts.complete, first.claim, '"x"', Step())
    releasing = await second(other, pg, threads.release, T)
    assert not releasing.done(), "it waits for whoever joins at this moment"
    run, created = await joined.end()
    await releasing
    assert created
    assert (await ledger.get(run)).state is RunState.AVAILABLE


async def test_run_that_joins_before_an_end_is_committed_is_released_by_it(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    (first,) = await in_thread(ledger, "first")
    ending = await paused(ledger, attempts.complete, first.claim, '"x"', Step())
    run, _ = await other.write(*joining("new"))
    assert run.in_line
    await ending.end()
    await released(other)
    assert (await ledger.get(run)).state is RunState.AVAILABLE


async def test_of_two_that_begin_a_thread_the_second_waits(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend
) -> None:
    first = await paused(ledger, *joining("first"))
    then = await second(other, pg, *joining("second"))
    assert not then.done()
    assert (await first.end())[0].state is RunState.AVAILABLE
    assert (await then)[0].in_line


async def test_of_two_that_begin_a_thread_and_would_not_wait_one_is_refused(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend
) -> None:
    first = await paused(ledger, *joining("first", on_busy="reject"))
    then = await second(other, pg, *joining("second", on_busy="reject"))
    await first.end()
    with pytest.raises(ThreadBusy, match="run 'first' is available"):
        await then


async def test_line_that_two_release_moves_by_one(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend
) -> None:
    first, following, last = await in_thread(ledger, "first", "following", "last")
    await ledger.write(attempts.complete, first.claim, '"x"', Step())
    one = await paused(ledger, threads.release, T)
    another = await second(other, pg, threads.release, T)
    await one.end()
    await another
    assert await ledger.event_kinds(following) == ["enqueued", "woken"]
    assert (await ledger.get(last)).in_line


async def test_run_that_joins_while_another_is_revived_waits_for_it(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend
) -> None:
    (first,) = await in_thread(ledger, "first")
    await ledger.write(attempts.discard, first.claim, "no", "", Step())
    reviving = await paused(ledger, runs.revive, "first", "ann")
    then = await second(other, pg, *joining("new"))
    assert (await reviving.end()).state is RunState.AVAILABLE
    assert (await then)[0].in_line


async def test_run_is_not_revived_while_another_begins_in_its_place(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend
) -> None:
    (first,) = await in_thread(ledger, "first")
    await ledger.write(attempts.discard, first.claim, "no", "", Step())
    begins = await paused(ledger, *joining("new"))
    reviving = await second(other, pg, runs.revive, "first", "ann")
    assert (await begins.end())[0].state is RunState.AVAILABLE
    with pytest.raises(TransitionRefused, match="run 'new' came after 'first'"):
        await reviving


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_message_is_seen_or_cancelled_and_nobody_waits_for_ever(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend, cancelled_first: bool
) -> None:
    (going,) = await in_thread(ledger, "going")
    message = await ledger.insert("message", thread=T, on_busy="steer")
    steers = tuple(await ledger.read(threads.list_steers, T, going.id))
    seeing = (
        steps.record_step,
        going.claim,
        Step(messages=(NewMessage(0, "request", "{}", steers),)),
    )
    cancelling = (runs.cancel, "message", "ann")
    first, then = (cancelling, seeing) if cancelled_first else (seeing, cancelling)
    pause = await paused(ledger, *first)
    task = await second(other, pg, *then)
    await pause.end()
    await task
    assert (await ledger.get(message)).state is RunState.CANCELLED
    await ledger.write(attempts.complete, going.claim, '"x"', Step())
    await released(other)
    assert (await ledger.get(message)).state is RunState.CANCELLED


async def test_message_is_not_taken_for_over_while_the_run_that_saw_it_is_revived(
    ledger: Ledger, other: PostgresDatabase, pg: PostgresBackend
) -> None:
    (going,) = await in_thread(ledger, "going")
    message = await ledger.insert("message", thread=T, on_busy="steer")
    steers = tuple(await ledger.read(threads.list_steers, T, going.id))
    step = Step(messages=(NewMessage(0, "request", "{}", steers),))
    await ledger.write(attempts.discard, going.claim, "no", "", step)
    reviving = await paused(ledger, runs.revive, "going", "ann")
    releasing = await second(other, pg, threads.release, T)
    await reviving.end()
    assert await releasing is False
    assert (await ledger.get(message)).in_line


async def test_two_processes_that_enqueue_and_end_strand_nobody(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    """At full speed: each enqueues, claims, ends and releases."""
    ended: list[int] = []
    await ledger.worker()

    async def take_part(database: Any, name: str) -> None:
        for number in range(ROUNDS):
            await database.write(*joining(f"{name}{number}"))
            for run in await database.write(attempts.claim, "w1", "agents", 10):
                ended.append(run.id)
                await database.write(attempts.complete, run.claim, '"x"', Step())
                await released(database)

    await asyncio.gather(take_part(ledger, "a"), take_part(other, "b"), take_part(ledger, "c"))
    while claimed := await ledger.write(attempts.claim, "w1", "agents", 10):
        (run,) = claimed
        ended.append(run.id)
        await ledger.write(attempts.complete, run.claim, '"x"', Step())
        await released(other)
    assert len(ended) == 3 * ROUNDS
    assert ended == sorted(ended)
