"""A step as one statement, where the database has one that does all of it: one round trip.

Owns which steps fit that statement, and its parameters; what they mean is `steps`'.
"""

from __future__ import annotations

import json
from itertools import zip_longest

from durably.budgets import spent_of
from durably.ledger.written import CallOutcome, Step
from durably.records import Claim

MESSAGES = 2
"""How many messages the statement takes: a step has its response, and the request before it."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def fits(step: Step) -> bool:
    """Whether the statement ``record_step`` can write this step."""
    return (
        bool(step.messages or step.outcomes)
        and len(step.messages) <= MESSAGES
        and not any(message.steers for message in step.messages)
        and not any(outcome.ask or _holds_nul(outcome) for outcome in step.outcomes)
        # Of others it would have to be looked for a NUL.
        and all(kind == "step" for kind, _ in step.events)
    )


def _holds_nul(outcome: CallOutcome) -> bool:
    """Whether there is a character that PostgreSQL's JSON functions refuse."""
    call = outcome.call
    texts = (call.tool_name, call.tool_call_id, call.args, outcome.result, outcome.error)
    return any(text is not None and "\0" in text for text in texts)


def touch_params(claim: Claim, step: Step) -> dict[str, object]:
    """The parameters of ``touch_run``."""
    return {
        "run_id": claim.run_id,
        "attempt": claim.attempt,
        "usage": step.usage,
        "cost_nanousd": step.cost_nanousd,
        "model": step.model,
        **_own_spending(step),
    }


def _own_spending(step: Step) -> dict[str, int | None]:
    """What the run has spent without its child runs; of what was not counted: as it was."""
    if step.usage is None:
        return {"tokens": None, "own_nanousd": None}
    own = spent_of(json.loads(step.usage), step.cost_nanousd or 0, shared=True)
    cost = None if step.cost_nanousd is None else own.nanousd
    return {"tokens": own.tokens, "own_nanousd": cost}


def step_params(claim: Claim, step: Step) -> dict[str, object]:
    """The parameters of ``record_step``."""
    params = touch_params(claim, step)
    params["messages"] = len(step.messages)
    for place, message in zip_longest("ab", step.messages):
        params[f"seq_{place}"] = message and message.seq
        params[f"kind_{place}"] = message and message.kind
        params[f"body_{place}"] = message and message.body
    outcome_events = [_outcome_event(outcome) for outcome in step.outcomes]
    events = [{"kind": kind, "data": data} for kind, data in step.events]
    # Without messages it was written first: it tells whether the step came before.
    params["fingerprint"] = step.fingerprint if step.messages else None
    params["outcomes"] = _encode([_outcome(outcome) for outcome in step.outcomes])
    params["events"] = _encode(outcome_events + events)
    return params


def outcome_data(outcome: CallOutcome) -> dict[str, object]:
    """What the event of an outcome says."""
    return {
        "call_id": outcome.call.position.call_id,
        "tool": outcome.call.tool_name,
        "state": outcome.state,
        **({"asked": True} if outcome.asked else {}),
    }


def _outcome_event(outcome: CallOutcome) -> dict[str, object]:
    data = outcome_data(outcome)
    return {"kind": "effect", "data": data, **outcome.call.position._asdict()}


def _outcome(outcome: CallOutcome) -> dict[str, object]:
    call = outcome.call
    return {
        **call.position._asdict(),
        "tool_name": call.tool_name,
        "tool_call_id": call.tool_call_id,
        "args": call.args,
        "policy": call.policy,
        "on_doubt": call.on_doubt,
        "idempotency_key": call.idempotency_key,
        "state": outcome.state,
        "asked": outcome.asked,
        "result": outcome.result,
        "error": outcome.error,
        **outcome.times(),
    }
