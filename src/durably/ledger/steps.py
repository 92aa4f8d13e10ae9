"""What an attempt writes between claim and settle: checkpoints, intents, outcomes.

Owns the fence: no operation here changes anything for a claim that is not the run's current one;
those that the attempt depends on raise `LeaseLost`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import batched

from durably.errors import LedgerError
from durably.ledger import deltas
from durably.ledger.budgets import spend
from durably.ledger.fence import hold, lease_lost, record_event, record_events
from durably.ledger.operations import (
    Deferred,
    Operation,
    Row,
    Statement,
    brief,
    execute,
    execute_alone,
    fetch_one,
    progress,
)
from durably.ledger.rows import effect_from
from durably.ledger.threads import take_steer
from durably.ledger.whole import fits, outcome_data, step_params, touch_params
from durably.ledger.written import CallOutcome, NewMessage, Step, ToolCall
from durably.records import CallPosition, Claim, Effect


@brief
@progress
def record_step(claim: Claim, step: Step, *, alone: bool = False) -> Operation[None]:
    """Append messages and outcomes: one fenced update and one small row each.

    The same step may come twice, when nobody heard whether the first was committed: its messages,
    or the agent's fingerprint, tell that its events are there as well.

    Args:
        alone: that nothing else is written with it.
    """
    before, unheard = None, step.fingerprint is not None and not step.messages
    if step.sharing is not None or unheard:
        before = yield from hold(claim)
    if unheard and not (yield from _set_fingerprint(claim, step)):
        step = replace(step, events=())
    in_parts = partial(_write_in_parts, claim, step)
    if fits(step):
        params = Deferred(partial(step_params, claim, step))
        alone = alone and before is None and not step.streams
        (written,) = yield Statement("record_step", params, alone=alone, instead=in_parts)
    else:
        (written,) = yield from in_parts()
    if not written["held"]:
        raise (yield from lease_lost(claim))
    if step.sharing is not None and before is not None:
        yield from spend(step.sharing, before, step.usage, step.cost_nanousd)
    if written["appended"] < len(step.messages):
        yield from _check_repeat(claim, step.messages, written["appended"])
        return  # The whole step is there: it was committed together.
    if step.streams and step.messages:
        yield from deltas.drop(claim)


def _write_in_parts(claim: Claim, step: Step) -> Operation[Sequence[Row]]:
    """What the statement ``record_step`` does at once; its row."""
    if not (yield from execute("touch_run", **touch_params(claim, step))):
        return [{"held": 0, "appended": 0}]
    appended = yield from _append(claim, step.messages)
    if appended < len(step.messages):
        return [{"held": 1, "appended": appended}]
    events: list[tuple[str, dict[str, object]]] = []
    for outcome in step.outcomes:
        if (yield from _note_outcome(claim, outcome)):
            events.append(("effect", outcome_data(outcome)))
    yield from record_events(claim, [*events, *step.events])
    if step.messages and step.fingerprint is not None:
        yield from _set_fingerprint(claim, step)
    return [{"held": 1, "appended": appended}]


def _append(claim: Claim, messages: Sequence[NewMessage]) -> Operation[int]:
    """Append messages, two at a time, since a step mostly has two, up to one that is there.

    Returns:
        How many were not there.
    """
    appended = 0
    for pair in batched(messages, 2):
        params: dict[str, object] = {"run_id": claim.run_id, "attempt": claim.attempt}
        for place, message in zip(("_a", "_b") if len(pair) > 1 else ("",), pair, strict=True):
            params[f"seq{place}"] = message.seq
            params[f"kind{place}"] = message.kind
            params[f"body{place}"] = message.body
        statement = "insert_two_messages" if len(pair) > 1 else "insert_message"
        new = yield from execute(statement, **params)
        appended += new
        if new < len(pair):
            break
        for message in pair:
            for steer in message.steers:
                yield from take_steer(claim, steer)
    return appended


def _set_fingerprint(claim: Claim, step: Step) -> Operation[int]:
    return (
        yield from execute(
            "set_fingerprint",
            run_id=claim.run_id,
            attempt=claim.attempt,
            fingerprint=step.fingerprint,
        )
    )


def _check_repeat(claim: Claim, messages: Sequence[NewMessage], new: int) -> Operation[None]:
    """See that this attempt has appended these very messages already.

    Args:
        new: how many of them were not there.

    Raises:
        LedgerError: others are there.
    """
    for message in messages:
        row = yield from fetch_one("get_message", run_id=claim.run_id, seq=message.seq)
        known = row is not None and row["attempt"] == claim.attempt and row["body"] == message.body
        if not known:
            raise LedgerError(
                f"Message {message.seq} of the run of attempt {claim.attempt} is another one "
                "already; nothing was written."
            )
    if new:
        raise LedgerError(
            f"Some messages of attempt {claim.attempt} are there already, but not all that come "
            "with them; nothing was written."
        )


@brief
@progress
def record_intent(claim: Claim, call: ToolCall) -> Operation[Effect | None]:
    """Record that a call is about to happen; a stale attempt cannot start one.

    A call in doubt, or one that was approved, becomes this attempt's.

    Returns:
        None: the intent is recorded. Otherwise what is recorded instead, and stays: the call
        settled or being asked about, or this attempt's own intent, if it was recorded before.
    """
    if (yield from execute_alone("insert_intent", **call_params(claim, call))):
        return None
    yield from hold(claim)
    effect = yield from effect_at(claim, call.position)
    assert effect is not None, "of a run that is held, an intent is refused only by an effect"
    return effect


@brief
@progress
def record_outcome(claim: Claim, outcome: CallOutcome) -> Operation[Effect | None]:
    """Record what became of a call, now.

    Returns:
        None: it is recorded. Otherwise what is recorded instead, and stays: late evidence, or a
        person, may have settled the call meanwhile, or this very outcome was recorded before.
    """
    if (yield from _insert_outcome(claim, outcome)):
        return None
    yield from hold(claim)
    effect = yield from effect_at(claim, outcome.call.position)
    assert effect is not None, "of a run that is held, an outcome is refused only by an effect"
    return effect


@brief
@progress
def find_outcome(claim: Claim, position: CallPosition) -> Operation[Effect | None]:
    """What is recorded of a call, once nothing that is still being committed can change it.

    A write, though it writes nothing: it waits for whoever else writes about the run, such as
    this attempt itself on a connection that it lost.
    """
    yield from hold(claim)
    return (yield from effect_at(claim, position))


@brief
@progress
def record_doubt(claim: Claim, outcome: CallOutcome) -> Operation[Effect | None]:
    """Ask about a call in doubt, or note what the model is told of it.

    Returns:
        What the ledger holds: the call as it was settled meanwhile, if it was; None if it was
        withdrawn meanwhile, since it certainly did not happen.
    """
    position = outcome.call.position
    yield from hold(claim)
    row = yield from fetch_one(
        "doubt_effect",
        run_id=claim.run_id,
        **position._asdict(),
        attempt=claim.attempt,
        asked=outcome.asked,
        result=outcome.result,
        told=outcome.result is not None,
        error=outcome.error,
    )
    if row is None:
        return (yield from effect_at(claim, position))
    yield from record_event(claim, "effect", **outcome_data(outcome))
    return effect_from(row)


def _insert_outcome(claim: Claim, outcome: CallOutcome) -> Operation[bool]:
    """Record an outcome and its event, alone; False if something is recorded that stays."""

    def in_parts() -> Operation[Sequence[Row]]:
        if not (yield from _note_outcome(claim, outcome)):
            return []
        yield from record_event(claim, "effect", **outcome_data(outcome))
        return [{"run_id": claim.run_id}]

    if outcome.ask is not None:
        return bool((yield from in_parts()))
    told = _outcome_params(claim, outcome) | {"event": json.dumps(outcome_data(outcome))}
    return bool((yield Statement("close_call", told, alone=True, instead=in_parts)))


def _note_outcome(claim: Claim, outcome: CallOutcome) -> Operation[int]:
    """Record an outcome, or whom it asks; 0 if something is recorded that stays."""
    if outcome.ask is None:
        return (yield from execute("record_outcome", **_outcome_params(claim, outcome)))
    return (
        yield from execute(
            "ask_person",
            **call_params(claim, outcome.call),
            ask=outcome.ask.kind,
            request=outcome.ask.request,
            within_seconds=outcome.ask.within_seconds,
            on_expiry=outcome.ask.on_expiry,
            escalate_queue=outcome.ask.escalate_queue,
        )
    )


def _outcome_params(claim: Claim, outcome: CallOutcome) -> dict[str, object]:
    return {
        **call_params(claim, outcome.call),
        "state": outcome.state.value,
        "asked": outcome.asked,
        "result": outcome.result,
        "error": outcome.error,
        **outcome.times(),
    }


def effect_at(claim: Claim, position: CallPosition) -> Operation[Effect | None]:
    """What is recorded of a call of the claim's run; None if nothing is."""
    row = yield from fetch_one("get_effect", run_id=claim.run_id, **position._asdict())
    return None if row is None else effect_from(row)


def call_params(claim: Claim, call: ToolCall) -> dict[str, object]:
    """The parameters of every statement that records a call."""
    return {
        "run_id": claim.run_id,
        "attempt": claim.attempt,
        **call.position._asdict(),
        "tool_name": call.tool_name,
        "tool_call_id": call.tool_call_id,
        "args": call.args,
        "policy": call.policy,
        "on_doubt": call.on_doubt,
        "idempotency_key": call.idempotency_key,
    }
