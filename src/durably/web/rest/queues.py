"""Queues and workers: what waits, who works, and how much at once."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from durably.web.rest.speaking import (
    NUMBER,
    READING,
    TEXT,
    Answer,
    Asked,
    Model,
    acting,
    named,
    problems,
    rest_routes,
)
from durably.web.site import Operator, SiteOf, Viewer

MAX_LIMIT = 999_999

routes = rest_routes("queues")

Queue = Annotated[str, named("The queue; it may have no run yet."), TEXT]


class ShownQueue(Model):
    """A queue."""

    queue: Annotated[str, Field(description="Its name.")]
    counts: Annotated[dict[str, int], Field(description="How many runs are in which state.")]
    paused: Annotated[bool, Field(description="Whether no attempt begins.")]
    limit: Annotated[
        int | None, Field(description="Runs at once on each worker; null: as each was started.")
    ]
    served_by: Annotated[
        dict[str, int], Field(description="The live workers, by id, with their own limits.")
    ]


class Queues(Model):
    """Every queue that has runs, or a live worker, or that was paused or scaled."""

    queues: Annotated[list[ShownQueue], Field(description="The queues.")]


class ShownQueueSetting(Model):
    """What was decided for a queue."""

    queue: Annotated[str, Field(description="Its name.")]
    paused: Annotated[bool, Field(description="Whether no attempt begins.")]
    limit: Annotated[
        int | None, Field(description="Runs at once on each worker; null: as each was started.")
    ]


class AskedScale(Asked):
    """How much of a queue each worker executes at once."""

    limit: Annotated[
        Annotated[int, Field(ge=1, le=MAX_LIMIT), NUMBER] | None,
        Field(description="Runs at once; null: as each worker was started."),
    ]


class ShownWorker(Model):
    """A process that drains queues."""

    id: Annotated[str, Field(description="Unique to this start of it.")]
    name: Annotated[str, Field(description="For people.")]
    pid: Annotated[int, Field(description="Its process.")]
    queues: Annotated[dict[str, int], Field(description="What it serves, with its limits.")]
    started_at: Annotated[datetime, Field(description="When it was started.")]
    heartbeat_at: Annotated[datetime, Field(description="When it was heard of last.")]
    expires_at: Annotated[datetime, Field(description="When it counts as dead without a word.")]
    executing: Annotated[int, Field(description="How many runs it executes.")]
    alive: Annotated[bool, Field(description="Whether it counts as alive.")]


class Workers(Model):
    """The workers, alive or lately dead."""

    workers: Annotated[list[ShownWorker], Field(description="The workers.")]


@routes.get(
    "/queues", operation_id="listQueues", response_model=Queues, responses=problems(*READING)
)
async def queues(site: SiteOf, _: Viewer) -> Answer:
    """Every queue, with how many of its runs are in which state."""
    found = await site.app.queues()
    return Answer(Queues(queues=[ShownQueue.model_validate(queue) for queue in found]))


@routes.post(
    "/queues/{queue:path}/pause",
    operation_id="pauseQueue",
    response_model=ShownQueueSetting,
    responses=acting(404),
)
async def pause(site: SiteOf, person: Operator, queue: Queue) -> Answer:
    """Let no attempt of it begin, on any worker, until it is resumed."""
    return Answer(ShownQueueSetting.model_validate(await site.app.pause(queue, by=person.name)))


@routes.post(
    "/queues/{queue:path}/resume",
    operation_id="resumeQueue",
    response_model=ShownQueueSetting,
    responses=acting(404),
)
async def resume(site: SiteOf, person: Operator, queue: Queue) -> Answer:
    """Let attempts of it begin again."""
    return Answer(ShownQueueSetting.model_validate(await site.app.resume(queue, by=person.name)))


@routes.post(
    "/queues/{queue:path}/scale",
    operation_id="scaleQueue",
    response_model=ShownQueueSetting,
    responses=acting(404),
)
async def scale(site: SiteOf, person: Operator, queue: Queue, asked: AskedScale) -> Answer:
    """Let every worker that serves it execute so many of its runs at once."""
    return Answer(
        ShownQueueSetting.model_validate(await site.app.scale(queue, asked.limit, by=person.name))
    )


@routes.get(
    "/workers", operation_id="listWorkers", response_model=Workers, responses=problems(*READING)
)
async def workers(site: SiteOf, _: Viewer) -> Answer:
    """The workers, alive or lately dead."""
    found = await site.app.workers()
    return Answer(Workers(workers=[ShownWorker.model_validate(worker) for worker in found]))
