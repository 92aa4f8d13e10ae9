"""Writes that come twice: nobody heard whether the first was committed, so it was repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from durably.ledger import attempts, evidence, steps
from durably.ledger.written import CallOutcome, NewMessage, Step
from durably.lifecycle import EffectState
from durably.records import RunRecord
from support.ledgers import LEASE_SECONDS, Ledger, done, message, tool_call

type Write = Callable[[], Awaitable[object]]

IN_DOUBT = CallOutcome(tool_call(), EffectState.IN_DOUBT, error="boom")
ASKED = CallOutcome(tool_call(), EffectState.IN_DOUBT, error="boom", asked=True)
TOLD = CallOutcome(tool_call(), EffectState.IN_DOUBT, result='{"return":1}', error="boom")
AWAITING = CallOutcome(tool_call(), EffectState.AWAITING, asked=True)
FAILED = CallOutcome(tool_call(), EffectState.FAILED, result='{"failed":"no"}')

STEPS = {
    "messages": Step(messages=(message(0), message(1)), events=(("step", {"messages": [0, 1]}),)),
    "messages and outcomes": Step(messages=(message(0),), outcomes=(done(),), usage='{"a":1}'),
    "an outcome alone": Step(outcomes=(done(),)),
    "a call that waits": Step(outcomes=(AWAITING,)),
    "a changed agent": Step(fingerprint='{"f":1}', events=(("agent_changed", {"model": "new"}),)),
    "three messages and calls": Step(
        messages=(message(0), message(1), message(2)),
        outcomes=(done(tool_call(0)), done(tool_call(1)), done(tool_call(2))),
        events=(("step", {"messages": [0, 1, 2]}),),
    ),
    "all of it": Step(
        usage='{"a":1}',
        messages=(NewMessage(0, "request", '{"m":1}'),),
        outcomes=(done(),),
        fingerprint='{"f":1}',
        events=(("agent_changed", {"model": "new"}), ("step", {"messages": [0]})),
    ),
}


async def repeated(ledger: Ledger, write: Write) -> None:
    """Make the write twice, and find that the second changed nothing and answered the same."""
    first = await write()
    once = ledger.dump()
    ledger.clock.advance(1)
    assert await write() == first
    assert ledger.dump() == once


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
async def test_step_is_there_once(ledger: Ledger, step: Step) -> None:
    run = await ledger.executing()
    await repeated(ledger, lambda: ledger.write(steps.record_step, run.claim, step))


async def test_agent_that_changes_back_and_forth_is_noted_each_time(ledger: Ledger) -> None:
    run = await ledger.executing()
    for fingerprint in ("one", "two", "one"):
        step = Step(fingerprint=fingerprint, events=(("agent_changed", {"to": fingerprint}),))
        await repeated(ledger, lambda step=step: ledger.write(steps.record_step, run.claim, step))
    assert (await ledger.event_kinds(run)).count("agent_changed") == 3


async def test_intent_is_there_once(ledger: Ledger) -> None:
    run = await ledger.executing()
    await repeated(ledger, lambda: ledger.started(run))


async def test_intent_of_a_call_that_was_in_doubt_is_there_once(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    await ledger.write(attempts.hand_back, run.claim, Step())
    again = await ledger.claim(run)
    await repeated(ledger, lambda: ledger.started(again))


@pytest.mark.parametrize(
    "outcome",
    [done(), FAILED, IN_DOUBT, ASKED, AWAITING],
    ids=["done", "failed", "in doubt", "asked", "awaiting"],
)
@pytest.mark.parametrize("started", [True, False])
async def test_outcome_is_there_once(ledger: Ledger, outcome: CallOutcome, started: bool) -> None:
    run = await ledger.executing()
    if started:
        await ledger.started(run)
    await repeated(ledger, lambda: ledger.ended(run, outcome))


async def test_call_that_fails_again_is_noted_again(ledger: Ledger) -> None:
    """The same words, but not the same failure: it was started anew between them."""
    run = await ledger.executing()
    for _ in range(2):
        await ledger.started(run)
        await repeated(ledger, lambda: ledger.ended(run, IN_DOUBT))
    assert (await ledger.event_kinds(run)).count("effect") == 2


@pytest.mark.parametrize("outcome", [ASKED, TOLD], ids=["asked", "told"])
@pytest.mark.parametrize("known", [True, False])
async def test_doubt_is_there_once(ledger: Ledger, outcome: CallOutcome, known: bool) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    if known:
        await ledger.write(steps.record_outcome, run.claim, IN_DOUBT)
    before = (await ledger.event_kinds(run)).count("effect")
    await repeated(ledger, lambda: ledger.write(steps.record_doubt, run.claim, outcome))
    assert (await ledger.event_kinds(run)).count("effect") == before + 1


async def test_intent_is_withdrawn_once(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.started(run)
    assert await ledger.write(evidence.withdraw_intent, run.claim, tool_call(), "no")
    once = ledger.dump()
    assert not await ledger.write(evidence.withdraw_intent, run.claim, tool_call(), "no")
    assert not await ledger.write(evidence.withdraw_late, run.claim, tool_call(), "no")
    assert ledger.dump() == once


async def lost(ledger: Ledger) -> RunRecord:
    """A run whose worker was presumed dead while it executed a call."""
    run = await ledger.executing()
    await ledger.started(run)
    ledger.clock.advance(LEASE_SECONDS + 1)
    await ledger.write(attempts.rescue)
    return run


async def test_late_evidence_is_there_once(ledger: Ledger) -> None:
    run = await lost(ledger)
    await repeated(ledger, lambda: ledger.write(evidence.settle_late, run.claim, done()))


async def test_late_evidence_is_refused_once(ledger: Ledger) -> None:
    run = await lost(ledger)
    await ledger.started(await ledger.claim(run, "w2"))
    await repeated(ledger, lambda: ledger.write(evidence.settle_late, run.claim, done()))


async def test_looking_for_an_outcome_changes_nothing(ledger: Ledger) -> None:
    run = await ledger.executing()
    position = tool_call().position
    assert await ledger.write(steps.find_outcome, run.claim, position) is None
    recorded = await ledger.ended(run, done())
    before = ledger.dump()
    assert await ledger.write(steps.find_outcome, run.claim, position) == recorded
    assert ledger.dump() == before
