"""Runs: enqueue one, find them, get one."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from durably import agents
from durably.budgets import MAX_COUNT, Budget
from durably.errors import ConfigError, HistoryError
from durably.intake import MAX_SECONDS
from durably.lifecycle import RunState
from durably.run import Run
from durably.web.rest.shown_runs import ShownRun, ShownRunInput, shown_run, shown_run_input
from durably.web.rest.speaking import (
    MAX_ID,
    NUMBER,
    READING,
    Answer,
    Asked,
    Flag,
    JsonObject,
    Key,
    Model,
    Name,
    Prose,
    Word,
    acting,
    of_run,
    problems,
    rest_routes,
)
from durably.web.site import Operator, SiteOf, Viewer

MAX_LIMIT = 500

Count = Annotated[int, Field(ge=0, le=MAX_COUNT), NUMBER]

BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]", re.ASCII)

routes = rest_routes("runs")


class AskedLimits(Asked):
    """What may be spent; what is null is not limited."""

    requests: Annotated[Count | None, Field(description="Model requests.")] = None
    tokens: Annotated[Count | None, Field(description="Input and output tokens together.")] = None
    tool_calls: Annotated[Count | None, Field(description="Calls of tools.")] = None
    usd: Annotated[
        Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?$")] | None,
        Field(
            description="US dollars as text, such as `1.50`; to the billionth.",
        ),
    ] = None


class AskedBudget(AskedLimits):
    """A budget."""

    on_limit: Annotated[
        Literal["suspend", "discard"],
        Field(description="At a limit: wait until somebody raises it, or discard the run."),
    ] = "suspend"

    def budget(self) -> Budget:
        """As the application has it."""
        return Budget(**self.model_dump())


def _said(moment: object) -> object:
    if not isinstance(moment, str) or not _MOMENT.match(moment):
        raise ValueError("it is no time, such as 2026-12-24T18:00:00+01:00")
    return moment


def _within(moment: datetime) -> datetime:
    """A time that every calendar has, also in another time zone; nothing was, or is, out of it."""
    year = min(max(moment.year, EARLIEST.year), LATEST.year)
    if year != moment.year:
        return EARLIEST if year == EARLIEST.year else LATEST
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, BeforeValidator(_said), AfterValidator(_within)]


class LinkedContent(Asked):
    """A file that the provider fetches."""

    kind: Annotated[
        Literal["image-url", "audio-url", "video-url", "document-url"],
        Field(description="What it is."),
    ]
    url: Annotated[
        str, Field(pattern=r"^https?://[^\x00\s]+$", max_length=10_000, description="Where it is.")
    ]


class EmbeddedContent(Asked):
    """A file as it is."""

    kind: Annotated[Literal["binary"], Field(description="`binary`.")]
    media_type: Annotated[
        str, Field(pattern=r"^[a-z]+/[a-z0-9.+-]+$", description="Such as `image/png`.")
    ]
    data: Annotated[str, Field(pattern=BASE64, description="Its bytes in base64.")]


_EITHER = "give key or unique_for, not both"
_ALONE = "on_busy is about a thread's other runs"


class AskedRun(Asked):
    """A run to be enqueued."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "not": {
                        "required": ["key", "unique_for"],
                        "properties": {
                            "key": {"type": "string"},
                            "unique_for": {"type": "number"},
                        },
                    },
                    "description": _EITHER,
                },
                {
                    "if": {
                        "required": ["on_busy"],
                        "properties": {"on_busy": {"enum": ["reject", "interrupt", "steer"]}},
                    },
                    "then": {
                        "required": ["thread"],
                        "properties": {"thread": {"type": "string"}},
                    },
                    "description": _ALONE,
                },
            ]
        }
    )

    agent: Annotated[
        Name, Field(description="The agent's name; a worker has to know it, this server need not.")
    ]
    prompt: Annotated[
        Prose | list[Prose | LinkedContent | EmbeddedContent],
        Field(description="What it is asked: a text, or a list of texts and files."),
    ]
    key: Annotated[
        Word | None,
        Field(description="Unique among all runs; an existing key finds its run."),
    ] = None
    args: Annotated[JsonObject | None, Field(description="For the agent's deps factory.")] = None
    queue: Annotated[Name | None, Field(description="Default: the agent's.")] = None
    priority: Annotated[int, Field(ge=0, le=9, description="0 (first) to 9."), NUMBER] = 0
    max_attempts: Annotated[
        Annotated[int, Field(ge=1, le=1_000_000), NUMBER] | None,
        Field(description="Failures. Default: the agent's."),
    ] = None
    delay: Annotated[
        float, Field(ge=0, le=MAX_SECONDS, description="Seconds until it is due."), NUMBER
    ] = 0.0
    scheduled_at: Annotated[
        Moment | None,
        Field(description="When it is due, instead of delay; with a time zone."),
    ] = None
    tags: Annotated[list[Name], Field(max_length=100, description="Labels to find it by.")] = Field(
        default_factory=list[str]
    )
    meta: Annotated[JsonObject | None, Field(description="The application's own.")] = None
    unique_for: Annotated[
        Annotated[float, Field(ge=0, le=MAX_SECONDS), NUMBER] | None,
        Field(
            description="Seconds in which the same agent, prompt and args find the run that is "
            "there already; instead of key.",
        ),
    ] = None
    thread: Annotated[Word | None, Field(description="The conversation that it continues.")] = None
    on_busy: Annotated[
        Literal["queue", "reject", "interrupt", "steer"],
        Field(description="What it does while another run of its thread is going."),
    ] = "queue"
    budget: Annotated[AskedBudget | None, Field(description="What it may spend.")] = None
    stream: Annotated[
        Flag | None,
        Field(description="Whether messages are shown in the making. Default: as its agent says."),
    ] = None


class Filters(BaseModel):
    """Which runs are looked for; all that is given has to match."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[list[RunState], Field(description="In one of these states.")] = Field(
        default_factory=list[RunState]
    )
    agent: Annotated[Name | None, Field(description="Of this agent.")] = None
    queue: Annotated[Name | None, Field(description="In this queue.")] = None
    tag: Annotated[Name | None, Field(description="With this tag.")] = None
    thread: Annotated[Name | None, Field(description="Of this thread.")] = None
    key: Annotated[Name | None, Field(description="With this in their key.")] = None
    text: Annotated[Name | None, Field(description="With this in their prompt or error.")] = None
    since: Annotated[Moment | None, Field(description="Enqueued from then on.")] = None
    until: Annotated[Moment | None, Field(description="Enqueued before.")] = None


class PageFilters(Filters):
    """The same, a page at a time."""

    before: Annotated[
        Annotated[int, Field(ge=0, le=MAX_ID)] | None,
        Field(description="`next` of the page before."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT, description="How many at most.")] = 50


class RunPage(Model):
    """Runs, newest first."""

    runs: Annotated[
        list[ShownRun],
        Field(description="The runs; maybe few, or none, although there are more: see `next`."),
    ]
    next: Annotated[
        int | None, Field(description="`before` of the next page; null: this is the last one.")
    ]


@routes.post(
    "/runs",
    operation_id="enqueueRun",
    response_model=ShownRun,
    status_code=201,
    responses=acting(409)
    | {
        200: {"model": ShownRun, "description": "The run was there already."},
        201: {"description": "The run is stored: it will reach an end, or say what it waits for."},
    },
)
async def enqueue(site: SiteOf, _: Operator, asked: AskedRun) -> Answer:
    """Store a run for a worker to execute; a key that exists finds its run."""
    options: dict[str, Any] = asked.model_dump(exclude={"agent", "budget"})
    budget = None if asked.budget is None else asked.budget.budget()
    prompt = _prompt(options.pop("prompt"))
    run: Run[Any] = await site.app.enqueue(asked.agent, prompt, budget=budget, **options)
    return Answer(shown_run(site.redact, run), 201 if run.created else 200)


@routes.get("/runs", operation_id="listRuns", response_model=RunPage, responses=problems(*READING))
async def list_runs(site: SiteOf, _: Viewer, filters: Annotated[PageFilters, Query()]) -> Answer:
    """Runs, newest first, a page at a time; each is found in about a tenth of a second."""
    found = await site.app.search(**filters.model_dump())
    runs = [shown_run(site.redact, run) for run in found.runs]
    return Answer(RunPage(runs=runs, next=found.next_before))


last_routes = rest_routes("runs")
"""Those whose keys would take everything behind them for a part of the key."""


@last_routes.get(
    "/runs/{key:path}",
    operation_id="getRun",
    response_model=ShownRunInput,
    responses=of_run(),
)
async def get_run(site: SiteOf, _: Viewer, key: Key) -> Answer:
    """A run, with what it was asked."""
    run = await site.app.get(key)
    return Answer(await shown_run_input(site.redact, run))


def _prompt(prompt: str | list[Any]) -> Any:
    if isinstance(prompt, str):
        return prompt
    try:
        return agents.codec.decode_prompt(json.dumps(prompt))
    except HistoryError as error:
        raise ConfigError(f"The prompt's parts cannot be read. {error}") from error
