"""Threads: of a thread's open runs only the first goes on; the others wait, and cost a row."""

from __future__ import annotations

import asyncio

import pytest

from durably.errors import ThreadBusy, TransitionRefused
from durably.ledger import attempts, ends, reads, runs, steps, threads
from durably.ledger.operations import Operation
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.written import NewMessage, Step
from durably.lifecycle import RunState
from durably.records import RunRecord
from support.ledgers import LEASE_SECONDS, Ledger, PostgresBackend, message, new_run

T = "customer-7"
DAY = 24 * 3600.0


async def end(ledger: Ledger, run: RunRecord, how: RunState = RunState.COMPLETED) -> RunRecord:
    """The run's end, and whoever must learn of it told."""
    if run.state is not RunState.EXECUTING:
        run = await ledger.claim(run)
    match how:
        case RunState.COMPLETED:
            ended = await ledger.write(attempts.complete, run.claim, '"out"', Step())
        case RunState.DISCARDED:
            ended = await ledger.write(attempts.discard, run.claim, "no use", "", Step())
        case _:
            ended = await ledger.write(attempts.stop, run.claim, Step())
    await tell(ledger, ended)
    return ended


async def tell(ledger: Ledger, run: RunRecord) -> None:
    assert run.thread is not None
    while await ledger.write(threads.release, run.thread):
        continue
    await ledger.write(ends.told, await ledger.get(run))


async def steer(ledger: Ledger, going: RunRecord, seq: int = 0) -> None:
    """Let the run that is going see all that is there for it."""
    steers = await ledger.read(threads.list_steers, T, going.id)
    step = Step(messages=(NewMessage(seq, "request", "{}", tuple(steers)),))
    await ledger.write(steps.record_step, going.claim, step)


# --- one at a time, in order


async def test_run_waits_while_another_of_its_thread_is_open(ledger: Ledger) -> None:
    first = await ledger.insert(thread=T)
    second = await ledger.insert(thread=T)
    alone = await ledger.insert(thread="another")
    assert (first.state, alone.state) == (RunState.AVAILABLE, RunState.AVAILABLE)
    assert second.state is RunState.SUSPENDED
    assert second.waiting_on == {"kind": "thread", "after": first.key}
    assert second.in_line
    claimed = await ledger.write(attempts.claim, await ledger.worker(), "agents", 10)
    assert {run.key for run in claimed} == {first.key, alone.key}


@pytest.mark.parametrize("how", [RunState.COMPLETED, RunState.DISCARDED, RunState.CANCELLED])
async def test_next_run_goes_on_however_the_one_before_ended(ledger: Ledger, how: RunState) -> None:
    first, second, third = [await ledger.insert(thread=T) for _ in range(3)]
    ended = await end(ledger, first, how)
    assert (ended.tells_end, (await ledger.get(first)).tells_end) == (True, False)
    assert (await ledger.get(second)).state is RunState.AVAILABLE
    assert (await ledger.get(second)).waiting_on is None
    assert (await ledger.get(third)).state is RunState.SUSPENDED
    assert await ledger.event_kinds(second) == ["enqueued", "woken"]


async def test_order_is_that_of_enqueueing_whatever_the_priority_and_queue(ledger: Ledger) -> None:
    options = [(9, "slow"), (5, "agents"), (0, "agents"), (9, "slow")]
    line = [await ledger.insert(thread=T, priority=p, queue=q) for p, q in options]
    for place, run in enumerate(line):
        states = [(await ledger.get(r)).state for r in line[place:]]
        assert states == [RunState.AVAILABLE, *[RunState.SUSPENDED] * (len(line) - place - 1)]
        await end(ledger, run)


async def test_run_that_is_not_due_holds_its_place(ledger: Ledger) -> None:
    first = await ledger.insert(thread=T)
    late = await ledger.insert(thread=T, delay_seconds=60.0)
    last = await ledger.insert(thread=T)
    assert (late.state, late.in_line) == (RunState.SUSPENDED, True)
    await end(ledger, first)
    late = await ledger.get(late)
    assert late.state is RunState.SCHEDULED
    assert (await ledger.get(last)).state is RunState.SUSPENDED
    assert await ledger.write(attempts.claim_one, await ledger.worker(), late.id) is None
    ledger.clock.advance(61)
    await end(ledger, late)
    assert (await ledger.get(last)).state is RunState.AVAILABLE


async def test_run_that_came_due_in_line_is_available_at_its_turn(ledger: Ledger) -> None:
    first = await ledger.insert(thread=T)
    late = await ledger.insert(thread=T, delay_seconds=60.0)
    ledger.clock.advance(61)
    await end(ledger, first)
    assert (await ledger.get(late)).state is RunState.AVAILABLE


@pytest.mark.parametrize("on_busy", ["queue", "interrupt", "steer"])
async def test_run_that_comes_while_the_only_other_ends_has_its_turn(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, on_busy: str
) -> None:
    """The line was seen with one run, which has ended by the next look at it."""
    first = await ledger.claim(await ledger.insert(thread=T))

    def ending_meanwhile() -> Operation[RunRecord]:
        inserting = runs.insert(new_run("second", thread=T, on_busy=on_busy))
        statement = next(inserting)
        try:
            while True:
                rows = yield statement
                if statement.name == "first_in_line":
                    assert [row["key"] for row in rows] == [first.key]
                    other.write_blocking(attempts.complete, first.claim, '"out"', Step())
                statement = inserting.send(rows)
        except StopIteration as end:
            return end.value[0]

    second = await ledger.write(ending_meanwhile)
    assert second.state is RunState.SUSPENDED
    assert second.waiting_on is not None
    assert second.waiting_on["after"] == first.key
    await tell(ledger, first)
    assert (await ledger.get(second)).state is RunState.AVAILABLE


@pytest.mark.parametrize("state", [RunState.RETRYABLE, RunState.SUSPENDED, RunState.SCHEDULED])
async def test_run_that_only_pauses_keeps_the_others_waiting(
    ledger: Ledger, state: RunState
) -> None:
    first = await ledger.in_state(state, thread=T)
    second = await ledger.insert(thread=T)
    await tell(ledger, first)
    assert (await ledger.get(second)).state is RunState.SUSPENDED


async def test_cancelled_run_in_line_is_passed_over(ledger: Ledger) -> None:
    first, second, third = [await ledger.insert(thread=T) for _ in range(3)]
    cancelled = await ledger.write(runs.cancel, second.key, "me")
    assert cancelled.state is RunState.CANCELLED
    await tell(ledger, cancelled)
    assert (await ledger.get(third)).state is RunState.SUSPENDED
    await end(ledger, first)
    assert (await ledger.get(third)).state is RunState.AVAILABLE


async def test_nobody_wakes_a_run_before_its_turn(ledger: Ledger) -> None:
    await ledger.insert(thread=T)
    for on_busy in ("queue", "interrupt", "steer"):
        waiting = await ledger.insert(thread=T, on_busy=on_busy)
        with pytest.raises(TransitionRefused):
            await ledger.write(runs.wake, waiting.key, "me")


async def test_end_that_nobody_lived_to_tell_is_told_once_it_is_found(ledger: Ledger) -> None:
    first, second = [await ledger.insert(thread=T) for _ in range(2)]
    run = await ledger.claim(first)
    await ledger.write(attempts.complete, run.claim, '"out"', Step())
    (untold,) = await ledger.read(ends.list_untold)
    assert untold.key == first.key
    await tell(ledger, untold)
    await tell(ledger, untold)  # Two workers may have found it.
    assert (await ledger.get(second)).state is RunState.AVAILABLE
    assert await ledger.event_kinds(second) == ["enqueued", "woken"]
    assert await ledger.read(ends.list_untold) == []


async def test_rescued_run_keeps_its_place_or_gives_it_up(ledger: Ledger) -> None:
    first = await ledger.claim(await ledger.insert(thread=T, max_attempts=2))
    second = await ledger.insert(thread=T)
    for state in (RunState.AVAILABLE, RunState.DISCARDED):
        ledger.clock.advance(LEASE_SECONDS + 1)
        (rescued,) = await ledger.write(attempts.rescue)
        assert rescued.state is state
        await tell(ledger, rescued)
        waits = (await ledger.get(second)).in_line
        assert waits == (state is RunState.AVAILABLE)
        if waits:
            await ledger.claim(first)


# --- revived


async def test_revived_run_goes_on_if_nothing_came_after_it(ledger: Ledger) -> None:
    first = await ledger.insert(thread=T)
    await end(ledger, first, RunState.DISCARDED)
    revived = await ledger.write(runs.revive, first.key, "me")
    assert (revived.state, revived.tells_end) == (RunState.AVAILABLE, True)
    second = await ledger.insert(thread=T)
    await end(ledger, first)
    assert (await ledger.get(second)).state is RunState.AVAILABLE


async def test_revived_run_waits_behind_one_that_is_open(ledger: Ledger) -> None:
    first, second, third = [await ledger.insert(thread=T) for _ in range(3)]
    await tell(ledger, await ledger.write(runs.cancel, second.key, "me"))
    revived = await ledger.write(runs.revive, second.key, "me")
    assert revived.waiting_on == {"kind": "thread", "after": first.key}
    await end(ledger, first)
    assert (await ledger.get(second)).state is RunState.AVAILABLE
    assert (await ledger.get(third)).state is RunState.SUSPENDED


@pytest.mark.parametrize("begun", ["available", "executing", "completed", "scheduled"])
async def test_run_is_not_revived_once_its_thread_has_gone_on(ledger: Ledger, begun: str) -> None:
    first = await ledger.insert(thread=T)
    second = await ledger.insert(thread=T, delay_seconds=60.0 if begun == "scheduled" else 0.0)
    await end(ledger, first, RunState.DISCARDED)
    if begun == "executing":
        await ledger.claim(second)
    elif begun == "completed":
        await end(ledger, second)
    before = ledger.dump()
    with pytest.raises(TransitionRefused, match=f"run '{second.key}' came after '{first.key}'"):
        await ledger.write(runs.revive, first.key, "me")
    assert ledger.dump() == before


async def test_run_that_never_began_is_not_in_the_way_of_reviving(ledger: Ledger) -> None:
    first, second = [await ledger.insert(thread=T) for _ in range(2)]
    cancelled = await ledger.write(runs.cancel, second.key, "me")
    await tell(ledger, cancelled)
    await end(ledger, first, RunState.CANCELLED)
    assert (await ledger.write(runs.revive, first.key, "me")).state is RunState.AVAILABLE


# --- on_busy


async def test_rejected_run_is_not_stored_and_names_who_is_going(ledger: Ledger) -> None:
    first = await ledger.insert(thread=T, on_busy="reject")
    await ledger.insert(thread=T)
    before = ledger.dump()
    with pytest.raises(ThreadBusy, match=f"run '{first.key}' is available") as refused:
        await ledger.write(runs.insert, new_run("new", thread=T, on_busy="reject"))
    assert (refused.value.thread, refused.value.key) == (T, first.key)
    assert ledger.dump() == before


@pytest.mark.parametrize("on_busy", ["queue", "reject", "interrupt", "steer"])
async def test_existing_key_finds_its_run_whoever_is_going(ledger: Ledger, on_busy: str) -> None:
    first = await ledger.insert(thread=T)
    before = ledger.dump()
    found, created = await ledger.write(runs.insert, new_run(first.key, thread=T, on_busy=on_busy))
    assert (found, created) == (first, False)
    assert ledger.dump() == before


@pytest.mark.parametrize("on_busy", ["queue", "reject", "interrupt", "steer"])
async def test_run_of_an_idle_thread_is_an_ordinary_one(ledger: Ledger, on_busy: str) -> None:
    await end(ledger, await ledger.insert(thread=T))
    run = await ledger.insert(thread=T, on_busy=on_busy)
    assert (run.state, run.waiting_on) == (RunState.AVAILABLE, None)


async def test_run_that_interrupts_says_whom_until_that_is_done(ledger: Ledger) -> None:
    first, second = [await ledger.insert(thread=T) for _ in range(2)]
    third = await ledger.insert(thread=T, on_busy="interrupt")
    wanted = {"kind": "interrupt", "after": second.key, "interrupts": first.key}
    assert third.waiting_on == wanted
    assert await ledger.read(threads.list_interrupts) == [third]
    await ledger.write(threads.interrupted, third.id)
    assert (await ledger.get(third)).waiting_on == wanted | {"kind": "thread"}
    assert await ledger.read(threads.list_interrupts) == []


async def test_turn_of_a_run_comes_also_if_its_interruption_was_not_carried_out(
    ledger: Ledger,
) -> None:
    first = await ledger.insert(thread=T)
    second = await ledger.insert(thread=T, on_busy="interrupt")
    await end(ledger, first)
    assert (await ledger.get(second)).state is RunState.AVAILABLE
    await ledger.write(threads.interrupted, second.id)
    assert (await ledger.get(second)).state is RunState.AVAILABLE


# --- steering


@pytest.mark.parametrize("how", [RunState.COMPLETED, RunState.DISCARDED, RunState.CANCELLED])
async def test_message_that_was_seen_ends_with_the_run_that_saw_it(
    ledger: Ledger, how: RunState
) -> None:
    going = await ledger.claim(await ledger.insert(thread=T))
    seen = [await ledger.insert(thread=T, on_busy="steer") for _ in range(2)]
    queued = await ledger.insert(thread=T)
    await steer(ledger, going)
    for run in seen:
        assert (await ledger.get(run)).waiting_on == {"kind": "steered", "steers": going.key}
    unseen = await ledger.insert(thread=T, on_busy="steer")
    ended = await end(ledger, going, how)
    for run in seen:
        now = await ledger.get(run)
        assert (now.state, now.output, now.attempt) == (how, ended.output, 0)
        assert (now.tells_end, now.finished_at is None, now.waiting_on) == (False, False, None)
        assert (await ledger.event_kinds(run)) == ["enqueued", "taken", str(how)]
        assert (now.error is not None) == (how is RunState.DISCARDED)
    assert (await ledger.event_kinds(going)).count("steered") == 2
    assert (await ledger.get(queued)).state is RunState.AVAILABLE
    assert (await ledger.get(unseen)).waiting_on == {"kind": "steer", "after": queued.key}


async def test_message_that_was_not_seen_is_the_next_run(ledger: Ledger) -> None:
    going = await ledger.claim(await ledger.insert(thread=T))
    unseen = await ledger.insert(thread=T, on_busy="steer")
    await end(ledger, going)
    assert (await ledger.get(unseen)).state is RunState.AVAILABLE


async def test_message_is_taken_with_the_request_that_shows_it_and_once(ledger: Ledger) -> None:
    going = await ledger.claim(await ledger.insert(thread=T))
    run = await ledger.insert(thread=T, on_busy="steer")
    (one,) = await ledger.read(threads.list_steers, T, going.id)
    for _ in range(2):  # Nobody heard whether the first was committed.
        step = Step(messages=(NewMessage(0, "request", "{}", (one,)),))
        await ledger.write(steps.record_step, going.claim, step)
        assert await ledger.event_kinds(run) == ["enqueued", "taken"]
    assert await ledger.read(threads.list_steers, T, going.id) == []


async def test_message_that_was_cancelled_in_time_is_not_seen(ledger: Ledger) -> None:
    going = await ledger.claim(await ledger.insert(thread=T))
    run = await ledger.insert(thread=T, on_busy="steer")
    await tell(ledger, await ledger.write(runs.cancel, run.key, "me"))
    assert await ledger.read(threads.list_steers, T, going.id) == []
    await end(ledger, going)
    assert (await ledger.get(run)).state is RunState.CANCELLED


async def test_message_that_is_cancelled_while_the_model_answers_stays_cancelled(
    ledger: Ledger,
) -> None:
    going = await ledger.claim(await ledger.insert(thread=T))
    run = await ledger.insert(thread=T, on_busy="steer")
    steers = await ledger.read(threads.list_steers, T, going.id)
    await ledger.write(runs.cancel, run.key, "me")
    step = Step(messages=(NewMessage(0, "request", "{}", tuple(steers)),))
    await ledger.write(steps.record_step, going.claim, step)
    assert (await ledger.get(run)).state is RunState.CANCELLED
    assert len(await ledger.read(reads.list_messages, going.id)) == 1
    assert (await ledger.event_kinds(going)).count("steered") == 1, "the model has seen it"


async def test_seen_message_waits_for_a_run_that_goes_on(ledger: Ledger) -> None:
    going = await ledger.claim(await ledger.insert(thread=T))
    run = await ledger.insert(thread=T, on_busy="steer")
    await steer(ledger, going)
    failed = await ledger.write(attempts.fail, going.claim, "boom", "", 0.0, Step())
    await tell(ledger, failed)
    assert (await ledger.get(run)).in_line
    ended = await end(ledger, failed)
    assert (await ledger.get(run)).output == ended.output


# --- what later runs start from, and pruning


async def test_earlier_runs_are_read_in_order_and_nothing_of_later_ones(ledger: Ledger) -> None:
    first = await ledger.claim(await ledger.insert(thread=T))
    both = Step(messages=(message(0, '"a"'), message(1, '"b"')))
    await ledger.write(steps.record_step, first.claim, both)
    await end(ledger, first)
    silent = await ledger.insert(thread=T, prompt='"heard?"')
    await end(ledger, silent, RunState.CANCELLED)
    never = await ledger.insert(thread=T)
    await ledger.write(runs.cancel, never.key, "me")
    own = await ledger.claim(await ledger.insert(thread=T))
    await ledger.write(steps.record_step, own.claim, both)
    await ledger.insert(thread="another")
    earlier = await ledger.read(threads.list_earlier, T, own.id)
    assert [run.key for run in earlier] == [first.key, silent.key, never.key]
    assert [m.body for m in earlier[0].messages] == ['"a"', '"b"']
    assert [run.prompt for run in earlier] == [None, '"heard?"', None]
    assert len(await ledger.read(threads.list_earlier, T)) == 4


async def test_thread_is_pruned_once_all_of_it_is_old(ledger: Ledger) -> None:
    for _ in range(2):
        await end(ledger, await ledger.insert(thread=T))
    alone = await ledger.insert()
    await ledger.write(attempts.complete, (await ledger.claim(alone)).claim, '"x"', Step())
    ledger.clock.advance(2 * DAY)
    last = await ledger.insert(thread=T)
    assert await ledger.read(reads.count_prunable, DAY, None) == 1
    assert await ledger.write(runs.prune, DAY, None, 100) == 1
    await end(ledger, last)
    assert await ledger.write(runs.prune, DAY, None, 100) == 0
    ledger.clock.advance(2 * DAY)
    assert await ledger.read(reads.count_prunable, DAY, None) == 3
    assert await ledger.write(runs.prune, DAY, None, 100) == 3


# --- many at once


async def test_runs_enqueued_and_ended_at_once_all_have_their_turn(ledger: Ledger) -> None:
    """Operations of one process, several at a time: nobody is stranded, one goes at a time."""

    async def enqueue(number: int) -> None:
        await ledger.write(runs.insert, new_run(f"n{number}", thread=T))

    await ledger.worker()
    ended: list[int] = []

    async def work() -> None:
        while len(ended) < 30:
            claimed = await ledger.write(attempts.claim, "w1", "agents", 10)
            assert len(claimed) <= 1
            for run in claimed:
                ended.append(run.id)
                await tell(ledger, await ledger.write(attempts.complete, run.claim, '"x"', Step()))

    async with asyncio.timeout(120):
        await asyncio.gather(work(), *(enqueue(number) for number in range(30)))
    assert ended == sorted(ended)
