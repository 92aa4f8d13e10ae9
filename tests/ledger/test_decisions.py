"""Late evidence and people's decisions: each settles an open effect, once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from durably.errors import DurablyError, EffectNotFound, RunNotFound, TransitionRefused
from durably.ledger import attempts, decisions, evidence, reads, runs, steps
from durably.ledger.operations import Operation
from durably.ledger.written import Ask, CallOutcome, Step, ToolCall
from durably.lifecycle import EffectState, RunState
from durably.records import RunRecord
from support.ledgers import LEASE_SECONDS, Ledger, done, tool_call

DONE = (EffectState.DONE, '{"return_value": 2}', None)
FAILED = (EffectState.FAILED, '{"error": "no"}', "no")
AGAIN = (None, None, None)


async def resolve(
    ledger: Ledger,
    run: RunRecord,
    call_id: str = "0.0",
    decision: tuple[EffectState | None, str | None, str | None] = DONE,
    by: str = "ann",
) -> RunRecord:
    return await ledger.write(decisions.resolve, run.key, call_id, *decision, by, "note")


async def waiting(ledger: Ledger, *calls: ToolCall) -> RunRecord:
    """A run that is suspended because these calls are in doubt and a person is asked."""
    run = await ledger.executing()
    for call in calls:
        await ledger.started(run, call)
    run = await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))
    asked = tuple(CallOutcome(call, EffectState.IN_DOUBT, asked=True) for call in calls)
    on: dict[str, object] = {"effects": [call.position.call_id for call in calls]}
    return await ledger.write(attempts.suspend, run.claim, "effects", on, Step(outcomes=asked))


# --- late evidence


async def test_late_evidence_settles_the_attempts_own_call(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    ledger.clock.advance(LEASE_SECONDS + 1)
    (rescued,) = await ledger.write(attempts.rescue)

    effect = await ledger.write(evidence.settle_late, run.claim, done())
    assert effect is not None
    assert (effect.state, effect.result) == (EffectState.DONE, '{"return_value": 1}')
    assert effect.resolved_by == "late evidence"
    assert await ledger.get(run) == rescued, "evidence does not move the run"


async def test_late_evidence_is_refused_once_another_attempt_repeats_the_call(
    ledger: Ledger,
) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    ledger.clock.advance(LEASE_SECONDS + 1)
    await ledger.write(attempts.rescue)
    other = await ledger.claim(run, "w2")
    repeated = await ledger.started(other)
    assert await ledger.write(evidence.settle_late, run.claim, done()) is None
    assert await ledger.effect(run, tool_call()) == repeated


async def test_late_evidence_is_refused_after_a_decision(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call())
    late = run.claim._replace(attempt=run.attempt - 1)
    await resolve(ledger, run, decision=FAILED)
    decided = await ledger.effect(run, tool_call())
    assert await ledger.write(evidence.settle_late, late, done()) is None
    assert await ledger.effect(run, tool_call()) == decided


async def test_late_evidence_is_refused_for_a_call_of_another_attempt(ledger: Ledger) -> None:
    run = await ledger.executing()
    effect = await ledger.started(run)
    late = run.claim._replace(attempt=run.attempt - 1)
    assert await ledger.write(evidence.settle_late, late, done()) is None
    assert await ledger.effect(run, tool_call()) == effect


async def test_late_evidence_of_a_pruned_run_is_refused_quietly(ledger: Ledger) -> None:
    run = await ledger.in_state(RunState.COMPLETED)
    ledger.clock.advance(10)
    await ledger.write(runs.prune, 1.0, None, 10)
    before = ledger.dump()
    assert await ledger.write(evidence.settle_late, run.claim, done()) is None
    assert ledger.dump() == before


async def test_late_evidence_tells_watchers_whether_it_was_accepted(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    await ledger.started(run, tool_call(0, 1))
    await ledger.write(attempts.hand_back, run.claim, Step())
    await ledger.write(evidence.settle_late, run.claim, done())
    again = await ledger.claim(run)
    await ledger.started(again, tool_call(0, 1))
    await ledger.write(evidence.settle_late, run.claim, done(tool_call(0, 1)))
    events = await ledger.read(reads.list_events, run.id, 0, 100)
    assert [e.data["accepted"] for e in events if e.kind == "late_evidence"] == [True, False]


async def test_late_evidence_wakes_the_run_that_waited_for_it(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call(0, 0), tool_call(0, 1))
    late = run.claim._replace(attempt=run.attempt - 1)
    await ledger.write(evidence.settle_late, late, done(tool_call(0, 0)))
    assert (await ledger.get(run)).state is RunState.SUSPENDED, "the other call is still asked"
    await ledger.write(evidence.settle_late, late, done(tool_call(0, 1)))
    assert (await ledger.get(run)).state is RunState.AVAILABLE


async def test_late_word_that_nothing_happened_forgets_the_call(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call())
    late = run.claim._replace(attempt=run.attempt - 1)
    assert await ledger.write(evidence.withdraw_late, late, tool_call(), "not started")
    assert await ledger.effect(run, tool_call()) is None
    assert (await ledger.get(run)).state is RunState.AVAILABLE
    assert not await ledger.write(evidence.withdraw_late, late, tool_call(), "not started")


async def test_late_word_that_nothing_happened_is_refused_for_what_others_did(
    ledger: Ledger,
) -> None:
    """A call that another attempt repeated, or that a person or evidence settled."""
    run = await ledger.executing()
    await ledger.started(run)
    await ledger.write(attempts.hand_back, run.claim, Step())
    other = await ledger.claim(run)
    repeated = await ledger.started(other)
    assert not await ledger.write(evidence.withdraw_late, run.claim, tool_call(), "no")
    assert await ledger.effect(run, tool_call()) == repeated
    await ledger.write(steps.record_outcome, other.claim, done())
    assert not await ledger.write(evidence.withdraw_late, other.claim, tool_call(), "no")


async def test_nobody_is_asked_about_a_call_that_was_withdrawn(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    await ledger.write(attempts.hand_back, run.claim, Step())
    other = await ledger.claim(run)
    await ledger.write(evidence.withdraw_late, run.claim, tool_call(), "not started")
    asked = CallOutcome(tool_call(), EffectState.IN_DOUBT, asked=True)
    assert await ledger.write(steps.record_doubt, other.claim, asked) is None
    assert await ledger.effect(run, tool_call()) is None


async def test_doubt_gives_way_to_what_was_settled_meanwhile(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    await ledger.write(attempts.hand_back, run.claim, Step())
    other = await ledger.claim(run)
    settled = await ledger.write(evidence.settle_late, run.claim, done())
    asked = CallOutcome(tool_call(), EffectState.IN_DOUBT, asked=True)
    assert await ledger.write(steps.record_doubt, other.claim, asked) == settled


# --- decisions


async def test_decision_wakes_the_run_when_nothing_is_left_asked(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call(0, 0), tool_call(0, 1), tool_call(0, 2))
    for call_id, decision in (("0.1", DONE), ("0.0", FAILED)):
        run = await resolve(ledger, run, call_id, decision)
        assert run.state is RunState.SUSPENDED
    run = await resolve(ledger, run, "0.2", AGAIN)
    assert (run.state, run.waiting_on) == (RunState.AVAILABLE, None)


async def test_decision_is_recorded_with_who_made_it(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call())
    await resolve(ledger, run, by="ann")
    effect = await ledger.effect(run, tool_call())
    assert effect is not None
    assert (effect.state, effect.result, effect.asked) == (EffectState.DONE, DONE[1], False)
    assert effect.resolved_by == "ann"


async def test_again_forgets_the_call(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call())
    await resolve(ledger, run, decision=AGAIN)
    assert await ledger.effect(run, tool_call()) is None


async def test_decision_counts_once(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call(0, 0), tool_call(0, 1))
    await resolve(ledger, run, "0.0", DONE, by="ann")
    decided = await ledger.effect(run, tool_call(0, 0))
    for decision in (DONE, FAILED, AGAIN):
        with pytest.raises(TransitionRefused, match="settled by ann"):
            await resolve(ledger, run, "0.0", decision, by="bob")
    assert await ledger.effect(run, tool_call(0, 0)) == decided


async def test_of_two_decisions_at_once_exactly_one_wins(ledger: Ledger) -> None:
    """Two tasks of one process: both are in the same group commit."""
    run = await waiting(ledger, tool_call(0, 0), tool_call(0, 1))
    people = [f"p{n}" for n in range(8)]
    answers = await asyncio.gather(
        *(resolve(ledger, run, "0.0", DONE, by=person) for person in people),
        return_exceptions=True,
    )
    winners = [p for p, a in zip(people, answers, strict=True) if isinstance(a, RunRecord)]
    refused = [a for a in answers if isinstance(a, TransitionRefused)]
    effect = await ledger.effect(run, tool_call(0, 0))
    assert effect is not None
    assert (len(winners), len(refused)) == (1, 7)
    assert effect.resolved_by == winners[0]


async def test_of_decisions_from_several_threads_exactly_one_wins(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call(0, 0), tool_call(0, 1))
    start = threading.Barrier(4)

    def decide(person: str) -> str | None:
        start.wait()
        try:
            ledger.database.write_blocking(decisions.resolve, run.key, "0.0", *DONE, person, "note")
        except TransitionRefused:
            return None
        return person

    told = await asyncio.gather(*(asyncio.to_thread(decide, f"p{n}") for n in range(4)))
    (winner,) = (person for person in told if person is not None)
    effect = await ledger.effect(run, tool_call(0, 0))
    assert effect is not None
    assert effect.resolved_by == winner


TAKES_NONE = {
    RunState.COMPLETED: "nothing of it is left to decide",
    RunState.DISCARDED: "retry it first",
    RunState.CANCELLED: "retry it first",
}


@pytest.mark.parametrize("state", TAKES_NONE, ids=str)
async def test_final_run_takes_no_decision(ledger: Ledger, state: RunState) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    match state:
        case RunState.COMPLETED:
            await ledger.write(attempts.complete, run.claim, '"x"', Step())
        case RunState.DISCARDED:
            await ledger.write(attempts.discard, run.claim, "no", "", Step())
        case _:
            await ledger.write(attempts.stop, run.claim, Step())
    before = ledger.dump()
    with pytest.raises(TransitionRefused, match=f"is {state}; {TAKES_NONE[state]}"):
        await resolve(ledger, run)
    assert ledger.dump() == before


async def test_call_that_is_being_carried_out_takes_no_decision(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    with pytest.raises(TransitionRefused, match="is started"):
        await resolve(ledger, run)


async def test_decision_while_another_attempt_runs_is_kept(ledger: Ledger) -> None:
    """The attempt finds the decision when it comes to the call: what is recorded first stays."""
    run = await ledger.executing()
    await ledger.started(run)
    run = await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))
    await resolve(ledger, run, decision=FAILED)
    found = await ledger.write(steps.record_outcome, run.claim, done())
    assert found is not None
    assert (found.state, found.resolved_by) == (EffectState.FAILED, "ann")
    assert (await ledger.get(run)).claim == run.claim


async def test_decision_that_came_before_suspending_wakes_at_once(ledger: Ledger) -> None:
    """Nothing is asked any more when the attempt suspends: nobody would ever wake the run."""
    run = await ledger.executing()
    await ledger.started(run)
    run = await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))
    await resolve(ledger, run, decision=DONE)
    asked = CallOutcome(tool_call(), EffectState.IN_DOUBT, asked=True)
    on: dict[str, object] = {"effects": ["0.0"]}
    moved = await ledger.write(attempts.suspend, run.claim, "effects", on, Step(outcomes=(asked,)))
    assert (moved.state, moved.waiting_on) == (RunState.AVAILABLE, None)


async def test_decisions_do_not_wake_a_run_that_waits_for_something_else(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    run = await ledger.write(attempts.suspend, run.claim, "change", {}, Step())
    run = await resolve(ledger, run)
    assert run.state is RunState.SUSPENDED


async def test_cancel_of_a_waiting_run_empties_the_inbox(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call())
    assert [item.run_key for item in await ledger.read(reads.list_inbox)] == [run.key]
    await ledger.write(runs.cancel, run.key, "me")
    assert await ledger.read(reads.list_inbox) == []


async def test_decision_names_a_call_by_position_or_by_an_unambiguous_id(ledger: Ledger) -> None:
    calls = (
        tool_call(0, 0, tool_call_id="call_0"),
        tool_call(0, 1, tool_call_id="call_1"),
        tool_call(2, 0, tool_call_id="call_0"),
    )
    run = await waiting(ledger, *calls)
    await resolve(ledger, run, "call_1")
    with pytest.raises(EffectNotFound, match=r"names 2 effects .* use one of: 0\.0, 2\.0\."):
        await resolve(ledger, run, "call_0")
    with pytest.raises(EffectNotFound, match=r"no effect 'nonsense'. Open: 0\.0, 2\.0\."):
        await resolve(ledger, run, "nonsense")
    with pytest.raises(RunNotFound, match="'nobody'"):
        await ledger.write(decisions.resolve, "nobody", "0.0", *DONE, "me", "")


async def test_refused_decision_changes_nothing(ledger: Ledger) -> None:
    run = await waiting(ledger, tool_call(0, 0), tool_call(0, 1))
    await resolve(ledger, run, "0.0")
    before = ledger.dump()
    for call_id in ("0.0", "9.9"):
        with pytest.raises(DurablyError):
            await resolve(ledger, run, call_id)
    assert ledger.dump() == before


async def test_call_that_the_model_was_told_about_is_not_forgotten(ledger: Ledger) -> None:
    """No silent repeat: the run goes on without it, so that "again" would only lose its record."""
    run = await ledger.executing()
    await ledger.started(run)
    told = CallOutcome(tool_call(), EffectState.IN_DOUBT, result='{"return_value": "unknown"}')
    await ledger.write(steps.record_doubt, run.claim, told)
    before = ledger.dump()
    with pytest.raises(TransitionRefused, match=r"was told .* say what became of it"):
        await resolve(ledger, run, decision=AGAIN)
    assert ledger.dump() == before
    await resolve(ledger, run, decision=DONE)
    effect = await ledger.effect(run, tool_call())
    assert effect is not None and effect.resolved_by == "ann"


@pytest.mark.parametrize("withdraw", [evidence.withdraw_intent, evidence.withdraw_late])
async def test_run_goes_on_when_an_approved_call_in_doubt_turns_out_not_to_have_begun(
    ledger: Ledger, withdraw: Callable[..., Operation[bool]]
) -> None:
    """Nothing is lost: it was asked about; once its approval has returned, nobody is asked."""
    call = tool_call()
    run = await ledger.executing()
    asks = CallOutcome(call, EffectState.AWAITING, asked=True, ask=Ask("approval"))
    run = await ledger.write(attempts.suspend, run.claim, "effects", {}, Step(outcomes=(asks,)))
    await ledger.write(decisions.approve, run.key, "0.0", None, None, "ann", "")
    frozen = await ledger.claim(run)
    await ledger.started(frozen)
    ledger.clock.advance(LEASE_SECONDS + 1)
    await ledger.write(attempts.rescue)
    other = await ledger.claim(run, "w2")
    doubt = CallOutcome(call, EffectState.IN_DOUBT, asked=True)
    await ledger.write(steps.record_doubt, other.claim, doubt)
    await ledger.write(attempts.suspend, other.claim, "effects", {}, Step())

    assert await ledger.write(withdraw, frozen.claim, call, "not started")
    assert (await ledger.get(run)).state is RunState.AVAILABLE
    again = await ledger.claim(run, "w2")
    assert (await ledger.started(again)).state is EffectState.STARTED, "nobody is asked again"
