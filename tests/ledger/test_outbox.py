"""What people have to be told is written with what makes it wait, and stays until it was sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from durably.errors import LeaseLost
from durably.ledger import attempts, decisions, expiry, notices, reads, runs, steps
from durably.ledger.written import Ask, CallOutcome, Step, ToolCall
from durably.lifecycle import EffectState, RunState
from durably.records import Notice, RunRecord
from support.ledgers import Ledger, stale, tool_call

CLAIM_SECONDS = 60.0


def asking(call: ToolCall, kind: str = "approval", **options: Any) -> CallOutcome:
    return CallOutcome(call, EffectState.AWAITING, asked=True, ask=Ask(kind, **options))


async def suspend(ledger: Ledger, run: RunRecord, *asked: CallOutcome) -> RunRecord:
    on: dict[str, object] = {"effects": [outcome.call.position.call_id for outcome in asked]}
    return await ledger.write(attempts.suspend, run.claim, "effects", on, Step(outcomes=asked))


async def waiting(ledger: Ledger, *calls: ToolCall, **options: Any) -> RunRecord:
    """A run whose calls wait for approval."""
    asked = [asking(call, **options) for call in calls or (tool_call(),)]
    return await suspend(ledger, await ledger.executing(), *asked)


async def due(ledger: Ledger) -> list[Notice]:
    return await ledger.write(notices.claim, CLAIM_SECONDS, 100)


def rows(ledger: Ledger) -> int:
    return len(ledger.dump()["notices"])


async def approve(ledger: Ledger, run: RunRecord, call_id: str = "0.0") -> RunRecord:
    return await ledger.write(decisions.approve, run.key, call_id, None, None, "ann", "")


# --- what is written


async def test_each_call_that_waits_for_a_person_is_told(ledger: Ledger) -> None:
    run = await ledger.executing()
    calls = (tool_call(0, 0), tool_call(0, 1), replace(tool_call(0, 2), policy="read"))
    kinds = ("approval", "question", "answer")
    run = await suspend(ledger, run, *map(asking, calls, kinds))
    found = await due(ledger)
    assert [(n.call_id, n.kind) for n in found] == [
        *(("0.0", "approval"), ("0.1", "question"), ("0.2", "answer"))
    ]
    assert {(n.run_id, n.reason, n.tries) for n in found} == {(run.id, "waiting", 1)}
    item = await ledger.read(notices.find_waiting, found[0])
    assert item is not None
    assert (item.run_key, item.agent, item.kind, item.tool_name, item.args) == (
        *(run.key, "a", "approval", "charge", {}),
    )
    assert (item.path, item.since, item.at) == ([run.key], ledger.clock.now, ledger.clock.now)


async def test_step_of_a_call_is_told_as_such(ledger: Ledger) -> None:
    call = tool_call()
    step = replace(call, position=call.position._replace(step="ship"))
    await waiting(ledger, step)
    (notice,) = await due(ledger)
    item = await ledger.read(notices.find_waiting, notice)
    assert (notice.call_id, item and item.call_id) == ("0.0/ship", "0.0/ship")


@pytest.mark.parametrize("kind", ["change", "budget"])
async def test_run_that_waits_for_a_person_itself_is_told(ledger: Ledger, kind: str) -> None:
    run = await ledger.executing(budget='{"requests": 1}')
    on = {"scope": "run", "name": run.key, "what": "requests", "limit": 1, "spent": 1}
    usage = '{"requests": 1}'
    await ledger.write(attempts.suspend, run.claim, kind, {"why": "more", **on}, Step(usage=usage))
    (notice,) = await due(ledger)
    assert (notice.position, notice.call_id, notice.kind) == (None, "", kind)
    item = await ledger.read(notices.find_waiting, notice)
    assert item is not None
    assert (item.kind, item.effect, item.request["why"]) == (kind, None, "more")
    await ledger.write(runs.wake, run.key, "me")
    assert await ledger.read(notices.find_waiting, notice) is None


async def test_run_that_waits_for_no_person_is_not_told(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.write(attempts.suspend, run.claim, "time", {}, Step())
    assert await due(ledger) == []


async def test_path_names_the_runs_that_started_it(ledger: Ledger) -> None:
    outer = await ledger.insert("outer")
    inner = await ledger.insert("inner", parent_id=outer.id)
    run = await ledger.claim(await ledger.insert("leaf", parent_id=inner.id))
    await suspend(ledger, run, asking(tool_call()))
    (notice,) = await due(ledger)
    item = await ledger.read(notices.find_waiting, notice)
    assert item is not None and item.path == ["outer", "inner", "leaf"]


async def test_attempt_that_lost_its_run_has_nobody_told(ledger: Ledger) -> None:
    run = await ledger.executing()
    step = Step(outcomes=(asking(tool_call()),))
    with pytest.raises(LeaseLost):
        await ledger.write(attempts.suspend, stale(run), "effects", {}, step)
    assert rows(ledger) == 0


async def test_suspension_that_is_written_twice_has_people_told_once(ledger: Ledger) -> None:
    run = await ledger.executing()
    await suspend(ledger, run, asking(tool_call()))
    before = ledger.dump()
    with pytest.raises(LeaseLost):
        await suspend(ledger, run, asking(tool_call()))
    assert ledger.dump() == before


async def test_run_that_is_cancelled_or_goes_on_at_once_is_not_told(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.write(runs.cancel, run.key, "me")
    assert (await suspend(ledger, run, asking(tool_call()))).state is RunState.CANCELLED
    run = await ledger.executing()
    await ledger.write(steps.record_outcome, run.claim, asking(tool_call()))
    await approve(ledger, run)
    on: dict[str, object] = {"effects": ["0.0"]}
    moved = await ledger.write(attempts.suspend, run.claim, "effects", on, Step())
    assert moved.state is RunState.AVAILABLE
    assert rows(ledger) == 0


# --- what is told again, and what is not


async def suspend_again(ledger: Ledger, run: RunRecord) -> RunRecord:
    """The run is woken for another reason, and waits for the same people again."""
    await ledger.write(runs.wake, run.key, "me")
    return await suspend(ledger, await ledger.claim(run))


async def test_same_asking_is_not_told_again(ledger: Ledger) -> None:
    run = await waiting(ledger)
    run = await suspend_again(ledger, run)
    assert rows(ledger) == 1, "about to be sent"
    (notice,) = await due(ledger)
    await ledger.write(notices.sent, notice, ["tell"])
    await suspend_again(ledger, run)
    assert rows(ledger) == 1, "sent"


async def test_doubt_about_a_call_that_was_approved_is_told(ledger: Ledger) -> None:
    """Twice, if the call is made again and is in doubt again; nobody moves the clock."""
    run = await waiting(ledger)
    (notice,) = await due(ledger)
    await ledger.write(notices.sent, notice, [])
    await approve(ledger, run)
    doubt = CallOutcome(tool_call(), EffectState.IN_DOUBT, asked=True)
    for _ in range(2):
        run = await ledger.claim(run)
        await ledger.started(run)
        await ledger.write(attempts.hand_back, run.claim, Step())
        run = await ledger.claim(run)
        await ledger.write(steps.record_doubt, run.claim, doubt)
        run = await suspend(ledger, run)
        (notice,) = await due(ledger)
        assert (notice.kind, notice.call_id) == ("doubt", "0.0")
        await ledger.write(notices.sent, notice, [])
        await ledger.write(decisions.resolve, run.key, "0.0", None, None, None, "ann", "")
    assert rows(ledger) == 3


async def test_doubt_waits_since_it_is_asked_about(ledger: Ledger) -> None:
    run = await waiting(ledger)
    ledger.clock.advance(60)
    run = await ledger.claim(await approve(ledger, run))
    await ledger.started(run)
    doubt = CallOutcome(tool_call(), EffectState.IN_DOUBT, asked=True)
    await ledger.write(steps.record_doubt, run.claim, doubt)
    await suspend(ledger, run)
    (item,) = await ledger.read(reads.list_inbox)
    assert (item.kind, item.effect.asked_at) == ("doubt", ledger.clock.now)


async def test_what_was_not_sent_because_the_run_went_on_is_told_when_it_waits_again(
    ledger: Ledger,
) -> None:
    run = await waiting(ledger)
    await ledger.write(runs.wake, run.key, "me")
    (notice,) = await due(ledger)
    assert await ledger.read(notices.find_waiting, notice) is None
    assert await ledger.write(notices.drop, notice)
    await suspend(ledger, await ledger.claim(run))
    (again,) = await due(ledger)
    assert again.id != notice.id
    assert await ledger.read(notices.find_waiting, again) is not None


async def test_nothing_that_waits_is_dropped(ledger: Ledger) -> None:
    """Whoever looked a moment before the run was suspended again is refused."""
    run = await waiting(ledger)
    (notice,) = await due(ledger)
    await suspend_again(ledger, run)
    assert not await ledger.write(notices.drop, notice)
    ledger.clock.advance(CLAIM_SECONDS)
    assert [n.id for n in await due(ledger)] == [notice.id]


async def test_run_that_is_revived_is_told_of_when_it_waits_again(ledger: Ledger) -> None:
    run = await waiting(ledger)
    (notice,) = await due(ledger)
    await ledger.write(notices.sent, notice, [])
    await ledger.write(runs.cancel, run.key, "me")
    await ledger.write(runs.revive, run.key, "me")
    await suspend(ledger, await ledger.claim(run))
    (again,) = await due(ledger)
    assert (again.call_id, again.kind) == (notice.call_id, notice.kind)


# --- escalation


async def expired(ledger: Ledger) -> RunRecord:
    run = await waiting(ledger, tool_call(), within_seconds=5.0, on_expiry="escalate")
    (notice,) = await due(ledger)
    await ledger.write(notices.sent, notice, [])
    ledger.clock.advance(6)
    return run


async def test_escalation_is_told_once(ledger: Ledger) -> None:
    run = await expired(ledger)
    assert await ledger.write(decisions.expire, run.key, "0.0") is not None
    assert await ledger.write(decisions.expire, run.key, "0.0") is None
    (notice,) = await due(ledger)
    assert (notice.reason, notice.kind, notice.call_id) == ("escalated", "approval", "0.0")
    item = await ledger.read(notices.find_waiting, notice)
    assert item is not None
    assert (item.reason, item.tags) == ("escalated", ["escalated"])
    assert (item.at - item.since).total_seconds() == 6


async def test_time_that_is_over_while_the_run_executes_counts_once_it_waits(
    ledger: Ledger,
) -> None:
    run = await expired(ledger)
    await ledger.write(runs.wake, run.key, "me")
    assert await ledger.write(decisions.expire, run.key, "0.0") is None
    await suspend(ledger, await ledger.claim(run))
    assert await ledger.read(expiry.list_expired) == [(run.key, "0.0")]
    assert await ledger.write(decisions.expire, run.key, "0.0") is not None
    assert [n.reason for n in await due(ledger)] == ["escalated"]


# --- taking up and settling


async def test_notice_of_a_worker_that_died_is_taken_up_by_another(ledger: Ledger) -> None:
    await waiting(ledger)
    (first,) = await due(ledger)
    assert await due(ledger) == []
    ledger.clock.advance(CLAIM_SECONDS)
    (again,) = await due(ledger)
    assert (again.id, again.tries) == (first.id, 2)
    one = await ledger.read(notices.find_waiting, first)
    two = await ledger.read(notices.find_waiting, again)
    assert one is not None and two is not None
    assert one.id == two.id, "the receiver recognises it"


async def test_of_workers_that_look_at_once_one_takes_it_up(ledger: Ledger) -> None:
    for _ in range(5):
        await waiting(ledger)
    found = await asyncio.gather(*(ledger.write(notices.claim, 60.0, 3) for _ in range(6)))
    ids = [notice.id for taken in found for notice in taken]
    assert len(ids) == len(set(ids))
    ids += [notice.id for notice in await due(ledger)]
    assert len(ids) == 5


async def test_notice_that_failed_comes_again_and_keeps_who_has_taken_it(ledger: Ledger) -> None:
    await waiting(ledger)
    (notice,) = await due(ledger)
    assert await ledger.write(notices.failed, notice, ["one"], "two: away", 20.0)
    ledger.clock.advance(19)
    assert not await ledger.read(notices.any_due)
    ledger.clock.advance(1)
    assert await ledger.read(notices.any_due)
    (again,) = await due(ledger)
    assert (again.tries, again.taken_by) == (2, ("one",))


async def test_failure_of_a_worker_that_was_too_slow_changes_nothing(ledger: Ledger) -> None:
    await waiting(ledger)
    (slow,) = await due(ledger)
    ledger.clock.advance(CLAIM_SECONDS)
    (other,) = await due(ledger)
    before = ledger.dump()
    assert not await ledger.write(notices.failed, slow, [], "away", None)
    assert ledger.dump() == before
    assert await ledger.write(notices.sent, slow, ["one"]), "but its success counts"
    settled = ledger.dump()
    assert not await ledger.write(notices.sent, other, ["one"])
    assert not await ledger.write(notices.failed, other, [], "away", 5.0)
    assert ledger.dump() == settled


async def test_giving_up_leaves_a_word_once(ledger: Ledger) -> None:
    run = await waiting(ledger)
    (notice,) = await due(ledger)
    assert await ledger.write(notices.failed, notice, [], "slack: away", None)
    assert not await ledger.write(notices.failed, notice, [], "slack: away", None)
    events = await ledger.read(reads.list_events, run.id, 0, 100)
    (event,) = [e for e in events if e.kind == "notice_failed"]
    assert event.data == {"call_id": "0.0", "kind": "approval", "tries": 1, "error": "slack: away"}
    assert await ledger.read(notices.count_given_up) == 1
    await approve(ledger, run)
    assert await ledger.read(notices.count_given_up) == 0


async def test_what_was_given_up_is_told_when_the_run_waits_again(ledger: Ledger) -> None:
    run = await waiting(ledger)
    (notice,) = await due(ledger)
    await ledger.write(notices.failed, notice, [], "slack: away", None)
    await suspend_again(ledger, run)
    assert len(await due(ledger)) == 1


async def test_notices_go_with_their_run(ledger: Ledger) -> None:
    run = await waiting(ledger)
    (notice,) = await due(ledger)
    await ledger.write(runs.cancel, run.key, "me")
    ledger.clock.advance(10)
    assert await ledger.write(runs.prune, 1.0, None, 10) == 1
    before = ledger.dump()
    assert not await ledger.write(notices.failed, notice, [], "away", None)
    assert not await ledger.write(notices.sent, notice, [])
    assert not await ledger.write(notices.drop, notice)
    assert ledger.dump() == before
    assert rows(ledger) == 0
