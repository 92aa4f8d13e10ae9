"""Calls, what people are asked about them and what they decided, as JSON; signals.

Owns the fields that programs read; they have the names that the records have.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from durably.allowed import item_decisions
from durably.lifecycle import EffectState
from durably.records import Decision, Effect, InboxItem, Signal
from durably.web.rest.speaking import Model, fields_of, parsed
from durably.web.site import Redact
from durably.web.views.masking import masked_decision, masked_effect, masked_signal


class ShownEffect(Model):
    """A tool call in the ledger, or a step or wait inside it."""

    call_id: Annotated[str, Field(description="Its id within the run, such as `3.0`.")]
    tool_name: Annotated[str, Field(description="The tool.")]
    tool_call_id: Annotated[str, Field(description="The provider's id; not unique in a run.")]
    args: Annotated[Any, Field(description="The arguments.")]
    policy: Annotated[str, Field(description="What repeating it would do.")]
    on_doubt: Annotated[
        str | None, Field(description="`ask`, `tell` or `retry`, for a call that may have happened")
    ]
    state: Annotated[EffectState, Field(description="What is known of it.")]
    asked: Annotated[bool, Field(description="Whether a person is asked to settle it.")]
    ask: Annotated[str | None, Field(description="What is, or was, asked or waited for.")]
    awaits: Annotated[
        str | None, Field(description="The signal's name, or the child's key, that it waits for.")
    ]
    request: Annotated[
        Any, Field(description="What a person is shown: the tool's schema, the question, choices.")
    ]
    approved: Annotated[bool, Field(description="Whether somebody let it run.")]
    attempt: Annotated[int, Field(description="The attempt that recorded it.")]
    idempotency_key: Annotated[str, Field(description="The same in every attempt.")]
    result: Annotated[Any, Field(description="The recorded result; null until there is one.")]
    error: Annotated[str | None, Field(description="What went wrong.")]
    resolved_by: Annotated[str | None, Field(description="Who settled it.")]
    started_at: Annotated[datetime, Field(description="When its intent was recorded.")]
    finished_at: Annotated[datetime | None, Field(description="When it was settled.")]
    asked_at: Annotated[datetime | None, Field(description="Since when it waits.")]
    expires_at: Annotated[datetime | None, Field(description="When nobody need decide any more.")]
    on_expiry: Annotated[str | None, Field(description="What happens then.")]
    escalate_queue: Annotated[
        str | None, Field(description="Where its run goes on once it was escalated.")
    ]


class ShownDecision(Model):
    """What somebody decided about a call, or about the run."""

    call_id: Annotated[str, Field(description="The call; empty for the run itself.")]
    decision: Annotated[
        str, Field(description="`approved`, `denied`, `answered`, `resolved`, `expired` …")
    ]
    by: Annotated[str, Field(description="Who.")]
    note: Annotated[str, Field(description="Why.")]
    args_before: Annotated[Any, Field(description="As the model gave the arguments.")]
    args_after: Annotated[Any, Field(description="As they were approved.")]
    at: Annotated[datetime, Field(description="When.")]


class ShownSignal(Model):
    """What was sent to a run."""

    id: Annotated[int, Field(description="Counts up.")]
    name: Annotated[str, Field(description="What the wait is called that takes it.")]
    payload: Annotated[Any, Field(description="What the wait returns.")]
    by: Annotated[str, Field(description="Who sent it.")]
    signal_id: Annotated[str | None, Field(description="The sender's own id of it.")]
    sent_at: Annotated[datetime, Field(description="When.")]
    taken_by: Annotated[str | None, Field(description="The call whose wait took it.")]


class ShownInboxItem(Model):
    """What waits for a person."""

    kind: Annotated[
        str, Field(description="`approval`, `answer`, `question`, `doubt` or `budget`.")
    ]
    run_key: Annotated[str, Field(description="The run that waits.")]
    agent: Annotated[str, Field(description="Its agent.")]
    queue: Annotated[str, Field(description="Its queue.")]
    tags: Annotated[list[str], Field(description="Its tags.")]
    since: Annotated[datetime, Field(description="When it began to wait.")]
    path: Annotated[
        list[str], Field(description="The keys of the runs that started it, and its own.")
    ]
    worker: Annotated[str | None, Field(description="Whose attempt made the call.")]
    waiting: Annotated[dict[str, Any], Field(description="What the run waits for.")]
    decisions: Annotated[list[str], Field(description="What may be decided about it.")]
    cursor: Annotated[str, Field(description="Where it stands in the inbox: `after` goes on.")]
    effect: Annotated[
        ShownEffect | None, Field(description="The call; null where it is about the run itself.")
    ]


def shown_effect(redact: Redact, effect: Effect) -> ShownEffect:
    """A call."""
    masked = masked_effect(effect, redact)
    texts = {"args": parsed(masked.args), "result": parsed(masked.result)}
    request = dict(effect.request)
    if "question" in request:
        request["question"] = redact("text", request["question"])
    fields = fields_of(masked, ShownEffect) | texts | {"request": request}
    return ShownEffect.model_validate(fields)


def shown_decision(redact: Redact, decision: Decision) -> ShownDecision:
    """A decision."""
    masked = masked_decision(decision, redact)
    args = {name: parsed(getattr(masked, name)) for name in ("args_before", "args_after")}
    return ShownDecision.model_validate(fields_of(masked, ShownDecision) | args)


def shown_signal(redact: Redact, signal: Signal) -> ShownSignal:
    """A signal."""
    taken_by = signal.taken_by.call_id if signal.taken_by else None
    fields = fields_of(masked_signal(signal, redact), ShownSignal)
    return ShownSignal.model_validate(fields | {"taken_by": taken_by})


def shown_inbox_item(redact: Redact, item: InboxItem) -> ShownInboxItem:
    """What waits for a person."""
    fields = {n: getattr(item, n) for n in ShownInboxItem.model_fields if n != "decisions"}
    fields["effect"] = shown_effect(redact, item.effect) if item.effect else None
    fields["decisions"] = list(item_decisions(item))
    return ShownInboxItem.model_validate(fields)
