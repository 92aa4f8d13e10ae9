"""One writer: a late or duplicate attempt is refused at every write, and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from durably.errors import LeaseLost, LedgerError, LedgerUnavailable
from durably.ledger import attempts, evidence, reads, runs, steps
from durably.ledger.written import CallOutcome, Step
from durably.lifecycle import EffectState, RunState
from durably.records import Claim
from support.ledgers import LEASE_SECONDS, Ledger, done, message, stale, tool_call

type Write = Callable[[Ledger, Claim], Awaitable[object]]

EVERYTHING = Step(
    usage='{"requests": 9}',
    messages=(message(7),),
    outcomes=(done(tool_call(7)),),
    fingerprint="f",
    events=(("note", {}),),
)

PLAIN = Step(
    messages=(message(7),), outcomes=(done(tool_call(7)),), events=(("step", {"messages": [7]}),)
)
"""One that PostgreSQL writes with a single statement."""

WRITES: dict[str, Write] = {
    "plain step": lambda ledger, c: ledger.write(steps.record_step, c, PLAIN),
    "step": lambda ledger, c: ledger.write(steps.record_step, c, EVERYTHING),
    "intent": lambda ledger, c: ledger.write(steps.record_intent, c, tool_call(7)),
    "intent again": lambda ledger, c: ledger.write(steps.record_intent, c, tool_call()),
    "outcome": lambda ledger, c: ledger.write(steps.record_outcome, c, done()),
    "new outcome": lambda ledger, c: ledger.write(steps.record_outcome, c, done(tool_call(7))),
    "doubt": lambda ledger, c: ledger.write(
        steps.record_doubt, c, CallOutcome(tool_call(), EffectState.IN_DOUBT, asked=True)
    ),
    "withdraw": lambda ledger, c: ledger.write(evidence.withdraw_intent, c, tool_call(), "no"),
    "complete": lambda ledger, c: ledger.write(attempts.complete, c, '"x"', EVERYTHING),
    "fail": lambda ledger, c: ledger.write(attempts.fail, c, "e", "t", 0.0, EVERYTHING),
    "discard": lambda ledger, c: ledger.write(attempts.discard, c, "e", "t", EVERYTHING),
    "suspend": lambda ledger, c: ledger.write(attempts.suspend, c, "change", {}, EVERYTHING),
    "hand_back": lambda ledger, c: ledger.write(attempts.hand_back, c, EVERYTHING),
    "stop": lambda ledger, c: ledger.write(attempts.stop, c, EVERYTHING),
}


async def _refused(ledger: Ledger, write: Write, claim: Claim) -> None:
    before = ledger.dump()
    try:
        accepted = await write(ledger, claim)
    except LeaseLost:
        accepted = False
    assert accepted is False
    assert ledger.dump() == before


@pytest.mark.parametrize("name", WRITES)
async def test_stale_attempt_cannot_write(ledger: Ledger, name: str) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    await _refused(ledger, WRITES[name], stale(run))


@pytest.mark.parametrize("name", WRITES)
async def test_attempt_whose_run_was_rescued_cannot_write(ledger: Ledger, name: str) -> None:
    """The same worker, the same attempt number, nobody else has claimed the run yet."""
    run = await ledger.executing()
    await ledger.started(run)
    ledger.clock.advance(LEASE_SECONDS + 1)
    await ledger.write(attempts.rescue)
    await _refused(ledger, WRITES[name], run.claim)


async def test_nobody_is_dead_because_the_database_stood_still(ledger: Ledger) -> None:
    """Health is not progress: the one who asked had no heartbeat through in that time either."""
    run = await ledger.executing()
    ledger.clock.advance(LEASE_SECONDS + 1)
    with pytest.raises(LedgerUnavailable, match="stood still"):
        await ledger.write(attempts.rescue, None, lambda: False)
    assert (await ledger.read(reads.get_run, run.key)).state is RunState.EXECUTING
    assert [r.key for r in await ledger.write(attempts.rescue, None, lambda: True)] == [run.key]


@pytest.mark.parametrize("name", WRITES)
async def test_attempt_of_a_pruned_run_cannot_write(ledger: Ledger, name: str) -> None:
    run = await ledger.in_state(RunState.COMPLETED)
    ledger.clock.advance(10)
    assert await ledger.write(runs.prune, 1.0, None, 10) == 1
    await _refused(ledger, WRITES[name], run.claim)


@pytest.mark.parametrize("name", WRITES)
async def test_current_attempt_can_write(ledger: Ledger, name: str) -> None:
    """The same writes are accepted from the one attempt that may make them."""
    run = await ledger.executing()
    await ledger.started(run)
    before = ledger.dump()
    assert await WRITES[name](ledger, run.claim) is not False
    assert (ledger.dump() != before) or name == "intent again"


async def test_refusal_tells_both_sides(ledger: Ledger) -> None:
    run = await ledger.executing()
    with pytest.raises(LeaseLost, match=r"Run 'r1' is owned by attempt 2; this is attempt 1\."):
        await ledger.write(attempts.complete, stale(run), '"x"', Step())
    await ledger.write(attempts.complete, run.claim, '"x"', Step())
    with pytest.raises(LeaseLost, match=r"Run 'r1' is completed; attempt 2 is over\."):
        await ledger.write(attempts.complete, run.claim, '"x"', Step())


async def test_step_of_an_attempt_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    """A transition that is refused takes the step that rides on it along."""
    run = await ledger.executing()
    await ledger.write(steps.record_step, run.claim, Step(messages=(message(0), message(1))))
    before = ledger.dump()
    other = Step(messages=(message(2), message(1, '"other"')), outcomes=(done(),))
    with pytest.raises(LedgerError, match=r"Message 1 .* is another one already"):
        await ledger.write(attempts.complete, run.claim, '"x"', other)
    assert ledger.dump() == before


# --- effects of the current attempt


async def test_intent_is_recorded_once(ledger: Ledger) -> None:
    run = await ledger.executing()
    first = await ledger.started(run)
    ledger.clock.advance(1)
    assert await ledger.started(run) == first
    assert (first.state, first.attempt) == (EffectState.STARTED, run.attempt)


async def test_settled_effect_never_changes(ledger: Ledger) -> None:
    """Neither by the attempt that settled it nor by a later one, whatever they write."""
    run = await ledger.executing()
    for settled in (EffectState.DONE, EffectState.FAILED, EffectState.DENIED):
        call = tool_call(int(run.attempt))
        first = CallOutcome(call, settled, '{"return_value": "first"}', "why")
        recorded = await ledger.ended(run, first)
        for _ in range(2):
            for state in EffectState:
                other = CallOutcome(call, state, '{"return_value": "other"}', asked=True)
                assert await ledger.write(steps.record_outcome, run.claim, other) == recorded
            assert await ledger.started(run, call) == recorded
            assert not await ledger.write(evidence.withdraw_intent, run.claim, call, "no")
            run = await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))
        assert await ledger.effect(run, call) == recorded


async def test_withdrawn_intent_leaves_no_effect(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    assert await ledger.write(evidence.withdraw_intent, run.claim, tool_call(), "not sent")
    assert await ledger.effect(run, tool_call()) is None
    assert (await ledger.event_kinds(run))[-1] == "effect_withdrawn"


ENDS: dict[str, Write] = {
    name: WRITES[name] for name in ("complete", "fail", "discard", "suspend", "hand_back", "stop")
}


@pytest.mark.parametrize("name", [*ENDS, "rescue"])
async def test_what_an_attempt_left_unfinished_is_in_doubt(ledger: Ledger, name: str) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    if name == "rescue":
        ledger.clock.advance(LEASE_SECONDS + 1)
        await ledger.write(attempts.rescue)
    else:
        await ENDS[name](ledger, run.claim)
    effect = await ledger.effect(run, tool_call())
    assert effect is not None
    assert effect.state is EffectState.IN_DOUBT


async def test_call_in_doubt_that_runs_again_keeps_its_idempotency_key(ledger: Ledger) -> None:
    run = await ledger.executing()
    first = await ledger.started(run)
    run = await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))
    again = await ledger.started(run)
    assert again.idempotency_key == first.idempotency_key
    assert (again.state, again.attempt) == (EffectState.STARTED, run.attempt)


async def test_messages_are_only_appended(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.write(steps.record_step, run.claim, Step(messages=(message(0, '"first"'),)))
    with pytest.raises(LedgerError, match=r"Message 0 .* is another one already"):
        await ledger.write(
            steps.record_step, run.claim, Step(messages=(message(0, '"second"'), message(1)))
        )
    assert [m.body for m in await ledger.read(reads.list_messages, run.id)] == ['"first"']


async def test_results_with_a_nul_are_recorded_with_their_step(ledger: Ledger) -> None:
    """As text that both databases can hold; beside others, and with their events."""
    run = await ledger.executing()
    odd = replace(tool_call(0, 1), tool_call_id="c\0d", args='{"a": "\\u0000"}')
    outcomes = (done(tool_call(0)), done(odd, '"\\u0000 \\ud800"'))
    step = Step(messages=(message(0),), outcomes=outcomes, events=(("step", {"messages": [0]}),))
    await ledger.write(steps.record_step, run.claim, step)
    effects = await ledger.read(reads.list_effects, run.id)
    assert [(e.tool_call_id, e.result) for e in effects][1] == ("c\ufffdd", '"\\u0000 \\ud800"')
    kinds = [event.kind for event in await ledger.read(reads.list_events, run.id, 0, 100)]
    assert kinds[-3:] == ["effect", "effect", "step"]


async def test_step_is_refused_whose_messages_are_there_in_part(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.write(steps.record_step, run.claim, Step(messages=(message(0),)))
    both = Step(messages=(message(0), message(1)), outcomes=(done(tool_call(0)),))
    with pytest.raises(LedgerError):
        await ledger.write(steps.record_step, run.claim, both)
    assert len(await ledger.read(reads.list_messages, run.id)) == 1
    assert await ledger.read(reads.list_effects, run.id) == []
