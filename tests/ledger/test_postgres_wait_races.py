"""Races on PostgreSQL around waits: one of both counts, and nobody is stranded.

Each is run in slow motion, both ways round: the second comes while the first one commits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from durably.errors import LeaseLost, TransitionRefused
from durably.execution.ends import tell_end, tell_ends
from durably.ledger import attempts, children, decisions, ends, expiry, reads, runs, waits
from durably.ledger.postgres.database import PostgresDatabase
from durably.ledger.waits import Wait
from durably.ledger.written import Ask, CallOutcome, Step, ToolCall
from durably.lifecycle import EffectState, RunState
from durably.records import CallPosition, Claim, RunRecord
from support.ledgers import Ledger, PostgresBackend, new_run, tool_call
from support.races import paused, second

type Write = tuple[Any, ...]

ROUNDS = 15
WITHIN_SECONDS = 5.0

both_ways = pytest.mark.parametrize("swapped", [False, True], ids=["one first", "other first"])


async def race(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, one: Write, two: Write
) -> tuple[Any, Any]:
    """What both said, an error instead of a result where they were refused."""
    pause = await paused(ledger, *one)
    task = await second(other, pg, *two)
    first = await pause.end()
    (later,) = await asyncio.gather(task, return_exceptions=True)
    assert not isinstance(later, AssertionError)
    return first, later


def inside(step: str) -> ToolCall:
    call = tool_call(1, 0)
    return ToolCall(
        CallPosition(1, 0, step), call.tool_name, "c", "{}", "read", None, f"k:1.0/{step}"
    )


def waiting(
    claim: Claim, step: str = "signal go", within: float | None = None, kind: str = "signal"
) -> Write:
    request = "{}" if within is None else '{"timeout": 5}'
    awaits = "go" if kind == "signal" else None
    wait = Wait(kind, awaits, within_seconds=within, request=request)
    return waits.begin, claim, inside(step), wait


def suspending(claim: Claim, *names: str) -> Write:
    on = {"waits": [{"call_id": f"1.0/{name}", "for": "signal"} for name in names]}
    return attempts.suspend, claim, "waits", on, Step()


def signalling(run: RunRecord, payload: str = '"1"', signal_id: str | None = None) -> Write:
    return waits.send_signal, run.key, "go", payload, "ann", signal_id


def expiring(run: RunRecord, call_id: str = "1.0/signal go") -> Write:
    return expiry.expire, run.key, call_id


async def asleep(ledger: Ledger, *steps: str, **wait: Any) -> RunRecord:
    """A run that is suspended for these waits."""
    run = await ledger.executing()
    for step in steps:
        await ledger.write(*waiting(run.claim, step, **wait))
    return await ledger.write(*suspending(run.claim, *steps))


async def states(ledger: Ledger, run: RunRecord) -> dict[str, str]:
    effects = await ledger.read(reads.list_effects, run.id)
    return {effect.position.step or effect.call_id: str(effect.state) for effect in effects}


async def taken(ledger: Ledger, run: RunRecord) -> list[str | None]:
    """Which wait took each signal, in their order."""
    signals = await ledger.read(waits.list_signals, run.id)
    return [signal.taken_by and signal.taken_by.step for signal in signals]


async def woken(ledger: Ledger, run: RunRecord) -> int:
    return (await ledger.event_kinds(run)).count("woken")


# --- signals


@both_ways
async def test_signal_while_its_wait_begins_arrives(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, swapped: bool
) -> None:
    run = await ledger.executing()
    writes = [waiting(run.claim), signalling(run)]
    await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    assert await states(ledger, run) == {"signal go": "done"}
    assert await taken(ledger, run) == ["signal go"]


@both_ways
async def test_signal_while_the_attempt_suspends_wakes_the_run(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, swapped: bool
) -> None:
    run = await ledger.executing()
    await ledger.write(*waiting(run.claim))
    writes = [suspending(run.claim, "signal go"), signalling(run)]
    await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    assert (await ledger.get(run)).state is RunState.AVAILABLE
    assert await states(ledger, run) == {"signal go": "done"}
    assert (await taken(ledger, run), await woken(ledger, run)) == (["signal go"], 1)


@both_ways
async def test_signal_in_the_moment_of_its_timeout_is_in_time_or_is_kept(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, swapped: bool
) -> None:
    run = await asleep(ledger, "signal go", within=WITHIN_SECONDS)
    ledger.clock.advance(WITHIN_SECONDS)
    writes = [signalling(run), expiring(run)]
    await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    assert await states(ledger, run) == {"signal go": "failed" if swapped else "done"}
    assert await taken(ledger, run) == [None if swapped else "signal go"]
    assert (await ledger.get(run)).state is RunState.AVAILABLE
    assert await woken(ledger, run) == 1
    again = await ledger.claim(run)
    await ledger.write(*waiting(again.claim, "signal go #2"))
    assert (await states(ledger, run))["signal go #2"] == ("done" if swapped else "awaiting")


async def test_two_signals_at_the_same_instant_are_taken_by_one_wait_each(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    run = await asleep(ledger, "signal go")
    await race(ledger, pg, other, signalling(run, '"1"'), signalling(run, '"2"'))
    assert await taken(ledger, run) == ["signal go", None]
    assert await woken(ledger, run) == 1
    again = await ledger.claim(run)
    await ledger.write(*waiting(again.claim, "signal go #2"))
    assert await taken(ledger, run) == ["signal go", "signal go #2"]


async def test_two_signals_at_the_same_instant_end_two_waits(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    run = await asleep(ledger, "signal go", "signal go #2")
    await race(ledger, pg, other, signalling(run, '"1"'), signalling(run, '"2"'))
    assert await taken(ledger, run) == ["signal go", "signal go #2"]
    assert (await ledger.get(run)).state is RunState.AVAILABLE


async def test_one_signal_that_is_sent_twice_at_the_same_instant_arrives_once(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    run = await asleep(ledger, "signal go", "signal go #2")
    send = signalling(run, '"1"', "one")
    await race(ledger, pg, other, send, send)
    assert await taken(ledger, run) == ["signal go"]
    assert await states(ledger, run) == {"signal go": "done", "signal go #2": "awaiting"}


async def test_signals_timeouts_and_suspending_at_full_speed_strand_nobody(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    for _ in range(ROUNDS):
        run = await ledger.executing()
        await ledger.write(*waiting(run.claim, within=WITHIN_SECONDS))
        ledger.clock.advance(WITHIN_SECONDS)
        await asyncio.gather(
            ledger.write(*suspending(run.claim, "signal go")),
            other.write(*signalling(run)),
            other.write(*expiring(run)),
        )
        assert (await ledger.get(run)).state is RunState.AVAILABLE
        (state,) = (await states(ledger, run)).values()
        assert await taken(ledger, run) == ["signal go" if state == "done" else None]


# --- times


@both_ways
async def test_timer_that_rings_while_the_attempt_suspends_wakes_the_run(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, swapped: bool
) -> None:
    run = await ledger.executing()
    await ledger.write(*waiting(run.claim, "sleep", WITHIN_SECONDS, "timer"))
    ledger.clock.advance(WITHIN_SECONDS)
    writes = [suspending(run.claim, "sleep"), expiring(run, "1.0/sleep")]
    await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    assert (await ledger.get(run)).state is RunState.AVAILABLE
    assert (await states(ledger, run), await woken(ledger, run)) == ({"sleep": "done"}, 1)


async def test_two_workers_that_look_after_one_timer_ring_it_once(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    run = await asleep(ledger, "sleep", within=WITHIN_SECONDS, kind="timer")
    ledger.clock.advance(WITHIN_SECONDS)
    ring = expiring(run, "1.0/sleep")
    first, later = await race(ledger, pg, other, ring, ring)
    assert (first is not None, later) == (True, None)
    assert await woken(ledger, run) == 1


# --- people and the clock

CALL = tool_call(1, 1)


def approving(run: RunRecord) -> Write:
    return decisions.approve, run.key, "1.1", None, None, "ann", ""


def denying(run: RunRecord) -> Write:
    denied = ("denied", EffectState.DENIED, '{"failed":"no"}', None, "bob", "")
    return decisions.decide, run.key, "1.1", *denied


async def asking(ledger: Ledger, on_expiry: str = "deny") -> RunRecord:
    """A run that waits for an approval whose time is over, and nobody has looked."""
    run = await ledger.executing()
    ask = Ask("approval", "{}", WITHIN_SECONDS, on_expiry)
    step = Step(outcomes=(CallOutcome(CALL, EffectState.AWAITING, asked=True, ask=ask),))
    on: dict[str, Any] = {"effects": ["1.1"]}
    run = await ledger.write(attempts.suspend, run.claim, "effects", on, step)
    ledger.clock.advance(WITHIN_SECONDS)
    return run


@both_ways
@pytest.mark.parametrize("decide", [approving, denying])
async def test_decision_in_the_moment_of_its_expiry_counts_or_is_refused(
    ledger: Ledger,
    pg: PostgresBackend,
    other: PostgresDatabase,
    decide: Callable[[RunRecord], Write],
    swapped: bool,
) -> None:
    run = await asking(ledger)
    writes = [decide(run), expiring(run, "1.1")]
    _, later = await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    said = {approving: "approved", denying: "denied"}[decide]
    assert isinstance(later, TransitionRefused) if swapped else later is None
    made = await ledger.read(reads.list_decisions, run.id)
    assert [d.decision for d in made] == ["expired" if swapped else said]
    assert (await ledger.get(run)).state is RunState.AVAILABLE
    assert await woken(ledger, run) == 1


@both_ways
async def test_approval_in_the_moment_of_its_escalation_counts(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, swapped: bool
) -> None:
    run = await asking(ledger, "escalate")
    writes = [approving(run), expiring(run, "1.1")]
    await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    made = [d.decision for d in await ledger.read(reads.list_decisions, run.id)]
    assert made == (["escalated", "approved"] if swapped else ["approved"])
    assert (await ledger.get(run)).state is RunState.AVAILABLE


async def test_of_two_people_and_the_clock_one_decides_at_full_speed(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    for _ in range(ROUNDS):
        run = await asking(ledger)
        await asyncio.gather(
            ledger.write(*approving(run)),
            other.write(*denying(run)),
            other.write(*expiring(run, "1.1")),
            return_exceptions=True,
        )
        assert len(await ledger.read(reads.list_decisions, run.id)) == 1
        assert (await ledger.get(run)).state is RunState.AVAILABLE


# --- parents and children

STEP = "run child"


def starting(parent: RunRecord, key: str = "child") -> Write:
    new = new_run(key, parent_id=parent.id)
    return children.begin, parent.claim, inside(STEP), new


def completing(child: RunRecord) -> Write:
    return attempts.complete, child.claim, '"found"', Step()


async def family(ledger: Ledger, key: str = "child") -> tuple[RunRecord, RunRecord]:
    """A run whose child is being executed, and that child."""
    parent = await ledger.executing()
    await ledger.write(*starting(parent, key))
    return parent, await ledger.claim(await ledger.read(reads.get_run, key), "w2")


def for_child(claim: Claim) -> Write:
    on = {"waits": [{"call_id": f"1.0/{STEP}", "for": "child", "name": "child"}]}
    return attempts.suspend, claim, "waits", on, Step()


@both_ways
async def test_child_that_ends_while_its_parent_suspends_wakes_it(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, swapped: bool
) -> None:
    parent, child = await family(ledger)
    await ledger.write(*completing(child))
    writes: list[Write] = [for_child(parent.claim), (children.tell_parent, child.id)]
    await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    assert (await ledger.get(parent)).state is RunState.AVAILABLE
    assert (await states(ledger, parent), await woken(ledger, parent)) == ({STEP: "done"}, 1)


@both_ways
async def test_child_that_ends_while_its_parent_comes_to_wait_for_it_is_heard(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, swapped: bool
) -> None:
    """The parent's tool runs again, and looks at its child in the moment of the child's end."""
    parent, child = await family(ledger)
    writes = [starting(parent), completing(child)]
    await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    await ledger.write(*for_child(parent.claim))
    await tell_ends(other)
    assert (await ledger.get(parent)).state is RunState.AVAILABLE
    assert await states(ledger, parent) == {STEP: "done"}
    assert await other.read(ends.list_untold) == []


async def test_end_of_a_child_that_two_tell_at_the_same_instant_wakes_its_parent_once(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    parent, child = await family(ledger)
    await ledger.write(*for_child(parent.claim))
    await ledger.write(*completing(child))
    tell: Write = (children.tell_parent, child.id)
    await race(ledger, pg, other, tell, tell)
    assert (await ledger.get(parent)).state is RunState.AVAILABLE
    assert await woken(ledger, parent) == 1


@both_ways
async def test_child_that_starts_while_its_parent_is_cancelled_ends_with_it(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, swapped: bool
) -> None:
    parent = await ledger.executing()
    writes: list[Write] = [starting(parent), (runs.cancel, parent.key, "ann")]
    await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    ended = await ledger.write(*for_child(parent.claim))
    assert (ended.state, ended.tells_end) == (RunState.CANCELLED, True)
    await tell_end(other, ended)
    child = await ledger.read(reads.get_run, "child")
    assert (child.state, child.tells_end) == (RunState.CANCELLED, False)
    assert (await ledger.get(parent)).tells_end is False


@both_ways
@pytest.mark.parametrize("end", ["rescued", "stopped"])
async def test_child_that_starts_while_its_parent_ends_is_none_or_ends_with_it(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase, end: str, swapped: bool
) -> None:
    parent = await ledger.executing(max_attempts=1)
    if end == "rescued":
        ledger.clock.advance(3600)
    ending: Write = (
        (attempts.rescue,) if end == "rescued" else (attempts.stop, parent.claim, Step())
    )
    writes = [starting(parent), ending]
    _, later = await race(ledger, pg, other, *(reversed(writes) if swapped else writes))
    assert isinstance(later, LeaseLost) == swapped
    await other.write(attempts.rescue)  # One that is being written about was passed over.
    for _ in range(2):
        await tell_ends(other)
    assert (await ledger.get(parent)).state.final
    born = await ledger.read(children.list_all, parent.id)
    assert [child.state for child in born] == ([] if swapped else [RunState.CANCELLED])
    assert await other.read(ends.list_untold) == []


async def test_late_attempt_of_a_run_that_is_being_cancelled_starts_no_child(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    parent = await ledger.executing()
    await ledger.write(attempts.hand_back, parent.claim, Step())
    _, later = await race(ledger, pg, other, (runs.cancel, parent.key, "ann"), starting(parent))
    assert isinstance(later, LeaseLost)
    assert await ledger.read(children.list_all, parent.id) == []


async def test_child_is_started_once_by_two_attempts_at_the_same_instant(
    ledger: Ledger, pg: PostgresBackend, other: PostgresDatabase
) -> None:
    """One of them is stale, and does not know it yet."""
    parent = await ledger.executing()
    pause = await paused(ledger, attempts.hand_back, parent.claim, Step())
    late = await second(other, pg, *starting(parent, "late"))
    await pause.end()
    with pytest.raises(LeaseLost):
        await late
    again = await ledger.claim(parent)
    await ledger.write(*starting(again))
    born = await ledger.read(children.list_all, parent.id)
    assert [child.key for child in born] == ["child"]


async def test_children_that_end_at_full_speed_wake_their_parents(
    ledger: Ledger, other: PostgresDatabase
) -> None:
    for turn in range(ROUNDS):
        parent, child = await family(ledger, f"child-{turn}")

        async def end_and_tell(child: RunRecord = child) -> None:
            await tell_end(other, await other.write(*completing(child)))

        async def begin_and_suspend(parent: RunRecord = parent, turn: int = turn) -> None:
            effect = await ledger.write(*starting(parent, f"child-{turn}"))
            if effect.state is EffectState.AWAITING:
                await ledger.write(*for_child(parent.claim))
            else:
                await ledger.write(attempts.hand_back, parent.claim, Step())

        await asyncio.gather(end_and_tell(), begin_and_suspend())
        assert (await ledger.get(parent)).state is RunState.AVAILABLE
        assert await states(ledger, parent) == {STEP: "done"}
