"""What a run did when: attempts, model requests with their calls, waits; and what was saved."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from durably.lifecycle import EffectState
from durably.web.rest.shown_runs import ShownAttempt, shown_attempt
from durably.web.rest.speaking import Answer, Key, Model, fields_of, of_run, rest_routes
from durably.web.site import SiteOf, Viewer

routes = rest_routes("history")


class ShownTimelineCall(Model):
    """A tool call, or a step inside one."""

    call_id: Annotated[str, Field(description="Such as `3.0`, or `3.0/charge` of a step.")]
    tool_name: Annotated[str, Field(description="The tool.")]
    policy: Annotated[str, Field(description="What repeating it would do.")]
    state: Annotated[EffectState, Field(description="What is known of it.")]
    attempt: Annotated[int, Field(description="The attempt that made it.")]
    started_at: Annotated[datetime, Field(description="When it began.")]
    ended_at: Annotated[datetime | None, Field(description="When it ended, if it has.")]
    waited: Annotated[bool, Field(description="Whether it waited: see the waits.")]


class ShownTimelineStep(Model):
    """One model request, and the calls that its response asked for."""

    seq: Annotated[int, Field(description="The position of the response in the history.")]
    attempt: Annotated[int, Field(description="The attempt that made it.")]
    started_at: Annotated[datetime, Field(description="When the model was asked, at the earliest.")]
    answered_at: Annotated[datetime, Field(description="When the response was checkpointed.")]
    model: Annotated[str, Field(description="Which model answered.")]
    input_tokens: Annotated[int, Field(description="What it read.")]
    output_tokens: Annotated[int, Field(description="What it wrote.")]
    cost_nanousd: Annotated[
        int | None, Field(description="In billionths of a US dollar; null: nobody knows.")
    ]
    tools: Annotated[list[str], Field(description="The tools that it calls.")]
    calls: Annotated[list[ShownTimelineCall], Field(description="Those that the ledger knows.")]
    reused: Annotated[bool, Field(description="A later attempt went on from it.")]


class ShownTimelineWait(Model):
    """A time in which the run, or a call of it, waited."""

    kind: Annotated[str, Field(description="`queue`, `approval`, `timer`, `budget` …")]
    call_id: Annotated[str, Field(description="The call that waits; empty for the run.")]
    started_at: Annotated[datetime, Field(description="When it began.")]
    ended_at: Annotated[datetime | None, Field(description="When it ended; null: it waits.")]
    by: Annotated[str | None, Field(description="Who ended it.")]


class ShownSaved(Model):
    """What earlier attempts had done and a later one did not do again."""

    responses: Annotated[int, Field(description="Model responses.")]
    tokens: Annotated[int, Field(description="Their tokens.")]
    cost_nanousd: Annotated[int, Field(description="Their cost, in billionths of a dollar.")]
    calls: Annotated[int, Field(description="Tool calls with a recorded outcome.")]


class ShownTimeline(Model):
    """What a run did when."""

    started_at: Annotated[datetime, Field(description="When it was enqueued.")]
    ended_at: Annotated[datetime | None, Field(description="When it ended; null: it goes on.")]
    attempts: Annotated[list[ShownAttempt], Field(description="The tries.")]
    steps: Annotated[list[ShownTimelineStep], Field(description="The model requests.")]
    waits: Annotated[list[ShownTimelineWait], Field(description="By when they began.")]
    saved: Annotated[ShownSaved, Field(description="What resuming saved.")]


@routes.get(
    "/runs/{key:path}/timeline",
    operation_id="getRunTimeline",
    response_model=ShownTimeline,
    responses=of_run(),
)
async def timeline(site: SiteOf, _: Viewer, key: Key) -> Answer:
    """What it did when."""
    run = await site.app.get(key)
    found = await run.timeline()
    attempts = [shown_attempt(site.redact, attempt) for attempt in found.attempts]
    fields = fields_of(found, ShownTimeline) | {"attempts": attempts}
    return Answer(ShownTimeline.model_validate(fields))
