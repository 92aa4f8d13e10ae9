"""Times that are over are looked after, whatever else is overdue."""

from __future__ import annotations

from durably.ledger import attempts, decisions, expiry, steps, waits
from durably.ledger.waits import Wait
from durably.ledger.written import Ask, CallOutcome, Step
from durably.lifecycle import EffectState
from support.ledgers import Ledger, tool_call


async def test_question_of_a_run_that_is_going_keeps_no_timer_from_ringing(ledger: Ledger) -> None:
    """A run was woken while it asked, and its queue is paused: its question cannot expire yet."""
    going, asleep = await ledger.executing(), await ledger.executing()
    ask = Ask("approval", "{}", 1.0, "deny")
    asked = CallOutcome(tool_call(1, 1), EffectState.AWAITING, asked=True, ask=ask)
    await ledger.write(steps.record_step, going.claim, Step(outcomes=(asked,)))
    wait = Wait("timer", within_seconds=2.0)
    await ledger.write(waits.begin, asleep.claim, tool_call(1, 0), wait)
    ledger.clock.advance(3)
    assert await ledger.read(expiry.list_expired, 1) == [(asleep.key, "1.0")]
    on: dict[str, object] = {"effects": ["1.1"]}
    await ledger.write(attempts.suspend, going.claim, "effects", on, Step())
    assert await ledger.read(expiry.list_expired, 1) == [(going.key, "1.1")]


async def test_question_of_a_run_that_is_over_is_looked_after_once(ledger: Ledger) -> None:
    run = await ledger.executing()
    ask = Ask("approval", "{}", 1.0, "deny")
    asked = CallOutcome(tool_call(1, 1), EffectState.AWAITING, asked=True, ask=ask)
    await ledger.write(attempts.stop, run.claim, Step(outcomes=(asked,)))
    ledger.clock.advance(3)
    assert await ledger.read(expiry.list_expired) == [(run.key, "1.1")]
    assert await ledger.write(expiry.expire, run.key, "1.1") is None
    assert await ledger.read(expiry.list_expired) == []


async def test_question_that_somebody_resolved_has_no_time_any_more(ledger: Ledger) -> None:
    run = await ledger.executing()
    ask = Ask("approval", "{}", 1.0, "deny")
    asked = CallOutcome(tool_call(1, 1), EffectState.AWAITING, asked=True, ask=ask)
    on: dict[str, object] = {"effects": ["1.1"]}
    await ledger.write(attempts.suspend, run.claim, "effects", on, Step(outcomes=(asked,)))
    said = (EffectState.DONE, '{"return": {"return_value": 1}}', None, "ann", "")
    await ledger.write(decisions.resolve, run.key, "1.1", *said)
    ledger.clock.advance(3)
    assert await ledger.read(expiry.list_expired) == []
