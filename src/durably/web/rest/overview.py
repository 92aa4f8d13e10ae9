"""What is going on altogether: statistics over a window, and who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from durably.administration import MAX_BUCKETS
from durably.intake import MAX_SECONDS
from durably.web.rest.speaking import (
    MAX_ID,
    READING,
    Answer,
    Model,
    Name,
    problems,
    rest_routes,
)
from durably.web.site import SiteOf, Viewer

routes = rest_routes("overview")


class Window(BaseModel):
    """Which statistics."""

    model_config = ConfigDict(extra="forbid")

    window_seconds: Annotated[float, Field(gt=0, le=MAX_SECONDS, description="How far back.")] = (
        3600.0
    )
    by: Annotated[
        Literal["agent", "queue", "model"] | None, Field(description="Also tell these apart.")
    ] = None
    agent: Annotated[Name | None, Field(description="Of what ended, only this agent.")] = None
    queue: Annotated[Name | None, Field(description="Of what ended, only this queue.")] = None
    model: Annotated[Name | None, Field(description="Of what ended, only this model.")] = None
    buckets: Annotated[
        int, Field(ge=1, le=MAX_BUCKETS, description="Into how many parts it is divided.")
    ] = 60


class ShownSpread(Model):
    """Durations, in seconds."""

    count: Annotated[int, Field(description="How many there are.")]
    median: Annotated[float | None, Field(description="Half of them were no longer.")]
    p95: Annotated[float | None, Field(description="95 of 100 were no longer.")]


class ShownEnded(Model):
    """Runs that ended in some time."""

    completed: Annotated[int, Field(description="How many completed.")]
    discarded: Annotated[int, Field(description="How many were discarded.")]
    cancelled: Annotated[int, Field(description="How many were cancelled.")]
    failures: Annotated[int, Field(description="Their failed attempts.")]
    crashes: Annotated[int, Field(description="Their attempts whose worker died.")]
    tokens: Annotated[int, Field(description="What their responses took.")]
    cost_nanousd: Annotated[int, Field(description="What they cost, in billionths of a dollar.")]
    wait: Annotated[ShownSpread, Field(description="From due to the first attempt.")]
    execution: Annotated[ShownSpread, Field(description="All attempts of a run together.")]


class ShownGroup(Model):
    """What ended of one agent, queue or model, or of all."""

    name: Annotated[str | None, Field(description="Which; null: all, or no model.")]
    total: Annotated[ShownEnded, Field(description="Over the whole window.")]
    buckets: Annotated[list[ShownEnded], Field(description="Its parts, oldest first.")]


class ShownStatistics(Model):
    """What there is now, and what ended over a window."""

    since: Annotated[datetime, Field(description="When the window begins.")]
    until: Annotated[datetime, Field(description="When it ends: the database's time.")]
    bucket_seconds: Annotated[float, Field(description="How long each of its parts is.")]
    by: Annotated[str | None, Field(description="What the groups are.")]
    states: Annotated[
        dict[str, int], Field(description="Runs in each state now; final ones up to `counted_to`.")
    ]
    waiting: Annotated[
        dict[str, int], Field(description="What waits for a person, up to `asked_counted_to`.")
    ]
    in_doubt: Annotated[int, Field(description="Calls in doubt, up to `asked_counted_to`.")]
    counted_to: Annotated[int, Field(description="That many, or more.")]
    asked_counted_to: Annotated[int, Field(description="That many, or more.")]
    total: Annotated[ShownGroup, Field(description="Everything that ended in the window.")]
    groups: Annotated[list[ShownGroup], Field(description="The same by group.")]


class ActionFilters(BaseModel):
    """Which actions."""

    model_config = ConfigDict(extra="forbid")

    run: Annotated[Name | None, Field(description="Only what was done to this run.")] = None
    before: Annotated[
        Annotated[int, Field(ge=0, le=MAX_ID)] | None,
        Field(description="`next` of the page before."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=500, description="How many at most.")] = 50


class ShownAction(Model):
    """What somebody did."""

    id: Annotated[int, Field(description="Counts up.")]
    at: Annotated[datetime, Field(description="When.")]
    by: Annotated[str, Field(description="Who.")]
    action: Annotated[str, Field(description="Such as `approve`, `cancel`, `pause`.")]
    run_key: Annotated[str | None, Field(description="The run; null: it was about none.")]
    subject: Annotated[str, Field(description="The call, the signal's name, the queue …")]
    data: Annotated[dict[str, Any], Field(description="What was said with it.")]


class Actions(Model):
    """The audit trail, newest first."""

    actions: Annotated[list[ShownAction], Field(description="What was done.")]
    next: Annotated[
        int | None, Field(description="`before` of the next page; null: this is the last one.")
    ]


@routes.get(
    "/statistics",
    operation_id="getStatistics",
    response_model=ShownStatistics,
    responses=problems(*READING),
)
async def statistics(site: SiteOf, _: Viewer, window: Annotated[Window, Query()]) -> Answer:
    """What there is now, and what ended in the last `window_seconds`."""
    found = await site.app.statistics(**window.model_dump())
    return Answer(ShownStatistics.model_validate(found))


@routes.get(
    "/actions",
    operation_id="listActions",
    response_model=Actions,
    responses=problems(*READING),
)
async def actions(site: SiteOf, _: Viewer, filters: Annotated[ActionFilters, Query()]) -> Answer:
    """The audit trail: what people and programs did, newest first; it outlives the runs."""
    found = await site.app.actions(**filters.model_dump())
    more = len(found) == filters.limit
    shown = [ShownAction.model_validate(action) for action in found]
    return Answer(Actions(actions=shown, next=found[-1].id if more else None))
