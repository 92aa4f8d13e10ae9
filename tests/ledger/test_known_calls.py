"""What an attempt makes of a call that it told the ledger about: it is what the ledger holds."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from durably.execution.known import KnownCalls
from durably.ledger import attempts, decisions, reads, steps
from durably.ledger.written import Ask, CallOutcome, Step
from durably.lifecycle import EffectState
from durably.records import Effect, RunRecord
from support.ledgers import Ledger, done, tool_call

IN_DOUBT = CallOutcome(tool_call(), EffectState.IN_DOUBT, error="boom")


async def nothing(ledger: Ledger, run: RunRecord) -> RunRecord:
    return run


async def begun(ledger: Ledger, run: RunRecord) -> RunRecord:
    await ledger.started(run)
    return run


async def doubted(ledger: Ledger, run: RunRecord) -> RunRecord:
    await ledger.started(run)
    await ledger.ended(run, IN_DOUBT)
    return await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))


async def told(ledger: Ledger, run: RunRecord) -> RunRecord:
    await ledger.started(run)
    await ledger.write(steps.record_doubt, run.claim, replace(IN_DOUBT, result='{"return":1}'))
    return await ledger.claim(await ledger.write(attempts.hand_back, run.claim, Step()))


async def approved(ledger: Ledger, run: RunRecord) -> RunRecord:
    ask = Ask("approval", '{"schema":{}}', 60.0, "escalate", "people")
    await ledger.ended(run, CallOutcome(tool_call(), EffectState.AWAITING, asked=True, ask=ask))
    waits: dict[str, object] = {"effects": ["0.0"]}
    await ledger.write(attempts.suspend, run.claim, "effects", waits, Step())
    await ledger.write(decisions.approve, run.key, "0.0", '{"n":2}', None, "ann", "")
    return await ledger.claim(run)


STORIES = [nothing, begun, doubted, told, approved]
OUTCOMES = [
    done(),
    CallOutcome(tool_call(), EffectState.FAILED, result='{"failed":"no"}'),
    IN_DOUBT,
    CallOutcome(tool_call(), EffectState.IN_DOUBT),
    replace(IN_DOUBT, asked=True),
]


def without_times(effect: Effect | None) -> Effect | None:
    """Times are the ledger's own; that a call has ended is not."""
    if effect is None:
        return None
    finished = effect.finished_at and effect.started_at
    return replace(effect, started_at=effect.started_at.min, finished_at=finished and finished.min)


@pytest.mark.parametrize("outcome", [None, *OUTCOMES])
@pytest.mark.parametrize("intent", [True, False])
@pytest.mark.parametrize("story", STORIES)
async def test_what_was_told_is_what_is_recorded(
    ledger: Ledger,
    story: Callable[[Ledger, RunRecord], Coroutine[Any, Any, RunRecord]],
    intent: bool,
    outcome: CallOutcome | None,
) -> None:
    run = await story(ledger, await ledger.executing())
    known = KnownCalls(await ledger.read(reads.list_effects, run.id), run.claim)
    if intent:
        instead = await ledger.write(steps.record_intent, run.claim, tool_call())
        assert (instead is None) == (story is not begun)
        _ = known.begun(tool_call()) if instead is None else known.put(instead)
    if outcome is not None:
        instead = await ledger.write(steps.record_outcome, run.claim, outcome)
        _ = known.ended(outcome) if instead is None else known.put(instead)
    told = without_times(known.find(tool_call().position))
    assert told == without_times(await ledger.effect(run, tool_call()))
    assert told in [*map(without_times, known), None]
