"""Runs, their history, attempts and events as JSON, with what may not be seen hidden.

Owns the fields that programs read; they have the names that the records have.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from durably.lifecycle import AttemptOutcome, RunState
from durably.records import Attempt, Event, StoredMessage
from durably.run import Run
from durably.web.rest.speaking import Model, fields_of, parsed
from durably.web.site import Redact
from durably.web.views.masking import masked_attempt, masked_body, masked_event, masked_run


class ShownRun(Model):
    """A run: one agent invocation from enqueue to a final state."""

    id: Annotated[int, Field(description="Counts up; pages of a list go by it.")]
    key: Annotated[str, Field(description="Unique among all runs.")]
    agent: Annotated[str, Field(description="The agent's name.")]
    queue: Annotated[str, Field(description="Where it waits for a worker.")]
    state: Annotated[RunState, Field(description="Where it is in its lifecycle.")]
    priority: Annotated[int, Field(description="0 (first) to 9.")]
    attempt: Annotated[int, Field(description="How often it was claimed.")]
    failures: Annotated[int, Field(description="Failed attempts; max_attempts limits them.")]
    crashes: Annotated[int, Field(description="Attempts whose worker died; limited alike.")]
    max_attempts: Annotated[int, Field(description="Failures after which it is discarded.")]
    tags: Annotated[list[str], Field(description="Labels to find it by.")]
    meta: Annotated[dict[str, Any], Field(description="The application's own.")]
    usage: Annotated[
        dict[str, Any], Field(description="Tokens, requests and tool calls over all attempts.")
    ]
    cost_nanousd: Annotated[
        int, Field(description="What it cost, in billionths of a US dollar, as far as known.")
    ]
    budget: Annotated[
        dict[str, Any] | None, Field(description="Its own limits; null: its agent's alone.")
    ]
    waiting_on: Annotated[
        dict[str, Any] | None, Field(description="What a suspended run waits for; null otherwise.")
    ]
    waits: Annotated[
        str | None, Field(description="The same as a sentence, with how to let it go on.")
    ]
    damage: Annotated[
        list[str], Field(description="What of its row cannot be read, as sentences; usually empty.")
    ]
    output: Annotated[Any, Field(description="What the agent returned; null until it has.")]
    error: Annotated[
        str | None, Field(description="Why the last attempt failed, or the run was discarded.")
    ]
    actions: Annotated[
        list[str], Field(description="Of `cancel`, `retry`, `raise_budget`, `signal`, what may be.")
    ]
    model: Annotated[str | None, Field(description="The last model that answered.")]
    waited_ms: Annotated[
        int | None, Field(description="How long it was due before it was claimed first.")
    ]
    executed_ms: Annotated[int, Field(description="How long its attempts took that are over.")]
    worker_id: Annotated[str | None, Field(description="The worker whose attempt it is, or was.")]
    thread: Annotated[str | None, Field(description="The conversation that it is a part of.")]
    parent_id: Annotated[int | None, Field(description="The id of the run whose tool started it.")]
    stream: Annotated[
        bool | None,
        Field(description="Whether messages are shown in the making; null: as its agent says."),
    ]
    cancel_requested_at: Annotated[
        datetime | None, Field(description="When somebody asked to cancel it.")
    ]
    scheduled_at: Annotated[datetime, Field(description="When it is, or was, due.")]
    inserted_at: Annotated[datetime, Field(description="When it was enqueued.")]
    attempted_at: Annotated[datetime | None, Field(description="When its last attempt began.")]
    finished_at: Annotated[datetime | None, Field(description="When it ended.")]


class ShownRunInput(ShownRun):
    """A run, with what it was asked."""

    prompt: Annotated[
        Any, Field(description="A text, or a list of Pydantic AI's user content, as JSON.")
    ]
    args: Annotated[Any, Field(description="For the agent's deps factory.")]


class ShownMessage(Model):
    """A checkpointed message of the history."""

    seq: Annotated[int, Field(description="Its position in the history, from 0.")]
    kind: Annotated[str, Field(description="`request` or `response`.")]
    attempt: Annotated[int, Field(description="The attempt that wrote it.")]
    body: Annotated[
        Any,
        Field(description="Pydantic AI's ModelMessage, as JSON, without fields at their default."),
    ]
    inserted_at: Annotated[datetime, Field(description="When it was written.")]


class ShownAttempt(Model):
    """One try by one worker."""

    attempt: Annotated[int, Field(description="Its number.")]
    worker_id: Annotated[str, Field(description="Whose it was.")]
    started_at: Annotated[datetime, Field(description="When it began.")]
    ended_at: Annotated[datetime | None, Field(description="When it ended.")]
    outcome: Annotated[AttemptOutcome | None, Field(description="How it ended.")]
    error: Annotated[str | None, Field(description="Why it failed.")]
    traceback: Annotated[str | None, Field(description="The same for whoever mends it.")]
    fingerprint: Annotated[
        str | None, Field(description="Of the agent's instructions, tools and model.")
    ]


class ShownEvent(Model):
    """A fact about a run."""

    id: Annotated[int, Field(description="The cursor of whoever watches.")]
    run_key: Annotated[str, Field(description="The run.")]
    kind: Annotated[str, Field(description="What happened, such as `step` or `completed`.")]
    attempt: Annotated[int, Field(description="In which attempt; 0: before the first.")]
    data: Annotated[dict[str, Any], Field(description="What there is to say of it.")]
    at: Annotated[datetime, Field(description="When.")]


def shown_run(redact: Redact, run: Run[Any]) -> ShownRun:
    """A run."""
    return ShownRun.model_validate(_run_fields(redact, run))


async def shown_run_input(redact: Redact, run: Run[Any]) -> ShownRunInput:
    """A run, with what it was asked, which is read for it."""
    asked = await run.input()
    fields = _run_fields(redact, run)
    fields["prompt"] = redact("prompt", parsed(asked.prompt))
    fields["args"] = redact("args", asked.args)
    return ShownRunInput.model_validate(fields)


def shown_message(redact: Redact, message: StoredMessage) -> ShownMessage:
    """A message of the history."""
    body = masked_body(parsed(message.body), redact)
    return ShownMessage.model_validate(fields_of(message, ShownMessage) | {"body": body})


def shown_attempt(redact: Redact, attempt: Attempt) -> ShownAttempt:
    """An attempt."""
    return ShownAttempt.model_validate(masked_attempt(attempt, redact))


def shown_event(redact: Redact, event: Event) -> ShownEvent:
    """An event."""
    return ShownEvent.model_validate(masked_event(event, redact))


def _run_fields(redact: Redact, run: Run[Any]) -> dict[str, Any]:
    record = masked_run(run.record, redact)
    fields = {name: getattr(record, name) for name in ShownRun.model_fields if name not in _OF_RUN}
    fields["waits"] = run.describe_waiting() if record.waiting_on else None
    fields["damage"] = list(record.damage)
    fields["output"] = parsed(record.output)
    fields["actions"] = list(run.actions_allowed)
    return fields


_OF_RUN = {"waits", "output", "actions", "damage"}
"""What a record does not say as it is shown."""
