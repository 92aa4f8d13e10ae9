"""The inbox, and what people decide: approve, deny, answer, resolve."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from durably.web.rest.shown_calls import ShownInboxItem, shown_inbox_item
from durably.web.rest.shown_runs import ShownRun, shown_run
from durably.web.rest.speaking import (
    MAX_NAME_CHARS,
    READING,
    Answer,
    Asked,
    Json,
    JsonObject,
    Key,
    Model,
    Name,
    Text,
    acting_on_run,
    problems,
    rest_routes,
)
from durably.web.site import Operator, SiteOf, Viewer

routes = rest_routes("people")

CURSOR = (
    r"^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z"
    r"\|[0-9]{1,18}\|(-1\.-1|[0-9]{1,9}\.[0-9]{1,9}(/[^\x00]*)?)$"
)

CallId = Annotated[Name, Field(description="The call, such as `3.0`; see the inbox.")]


class InboxFilters(BaseModel):
    """Which items are listed."""

    model_config = ConfigDict(extra="forbid")

    agent: Annotated[Name | None, Field(description="Of runs of this agent.")] = None
    queue: Annotated[Name | None, Field(description="Of runs in this queue.")] = None
    tag: Annotated[Name | None, Field(description="Of runs with this tag.")] = None
    kind: Annotated[
        Literal["approval", "answer", "question", "doubt", "budget"] | None,
        Field(description="Only what is asked like this."),
    ] = None
    after: Annotated[
        Annotated[str, Field(pattern=CURSOR, max_length=MAX_NAME_CHARS)] | None,
        Field(description="`next` of the page before, or an item's `cursor`."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=500, description="How many at most.")] = 100


class Inbox(Model):
    """What waits for a person."""

    items: Annotated[list[ShownInboxItem], Field(description="Oldest first.")]
    next: Annotated[
        str | None, Field(description="`after` of the next page; null: this is the last one.")
    ]


class AskedDecision(Asked):
    """A decision about a call."""

    call_id: CallId
    note: Annotated[Text, Field(description="Why; kept with the decision.")] = ""


class AskedApproval(AskedDecision):
    """Let a call run."""

    args: Annotated[
        JsonObject | None, Field(description="Run it with these arguments instead.")
    ] = None
    expected: Annotated[
        JsonObject | None,
        Field(description="The arguments that this is about: refused if they are others by now."),
    ] = None


class AskedDenial(Asked):
    """Keep a call from running."""

    call_id: CallId
    reason: Annotated[Text, Field(description="What the model reads.")] = "It was denied."


class AskedAnswer(AskedDecision):
    """An answer to a question, or in the place of a call that nobody here can make."""

    value: Annotated[Json, Field(description="What the form, the choices or the tool ask for.")]


class AskedResolution(AskedDecision):
    """How a call in doubt ended; exactly one of `done`, `failed` and `again`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["done"]},
                {"required": ["failed"], "properties": {"failed": {"type": "string"}}},
                {"required": ["again"], "properties": {"again": {"const": True}}},
            ]
        }
    )

    done: Annotated[Json, Field(description="It happened, and this is its result.")] = None
    failed: Annotated[
        Text | None, Field(description="It did not work, and this is what the model is told.")
    ] = None
    again: Annotated[
        Literal[True] | None, Field(description="It did not happen: run it again.")
    ] = None

    def given(self) -> dict[str, Any]:
        """What was sent; ``done`` may be null."""
        given = {"failed": self.failed, "again": self.again}
        said = {name: value for name, value in given.items() if value is not None}
        return said | ({"done": self.done} if "done" in self.model_fields_set else {})


@routes.get("/inbox", operation_id="listInbox", response_model=Inbox, responses=problems(*READING))
async def inbox(site: SiteOf, _: Viewer, filters: Annotated[InboxFilters, Query()]) -> Answer:
    """Everything that waits for a person."""
    found = await site.app.inbox(**filters.model_dump())
    items = [shown_inbox_item(site.redact, item) for item in found]
    more = len(items) == filters.limit
    return Answer(Inbox(items=items, next=items[-1].cursor if more else None))


@routes.post(
    "/runs/{key:path}/approve",
    operation_id="approveCall",
    response_model=ShownRun,
    responses=acting_on_run(),
)
async def approve(site: SiteOf, person: Operator, key: Key, asked: AskedApproval) -> Answer:
    """Let a call run that waits for approval."""
    run = await site.app.get(key)
    await run.approve(**asked.model_dump(), by=person.name)
    return Answer(shown_run(site.redact, run))


@routes.post(
    "/runs/{key:path}/deny",
    operation_id="denyCall",
    response_model=ShownRun,
    responses=acting_on_run(),
)
async def deny(site: SiteOf, person: Operator, key: Key, asked: AskedDenial) -> Answer:
    """Keep a call from running that waits for a person."""
    run = await site.app.get(key)
    await run.deny(asked.call_id, reason=asked.reason, by=person.name)
    return Answer(shown_run(site.redact, run))


@routes.post(
    "/runs/{key:path}/answer",
    operation_id="answerCall",
    response_model=ShownRun,
    responses=acting_on_run(),
)
async def answer(site: SiteOf, person: Operator, key: Key, asked: AskedAnswer) -> Answer:
    """Answer a question, or in the place of a call that nobody here can make."""
    run = await site.app.get(key)
    await run.answer(asked.call_id, asked.value, by=person.name, note=asked.note)
    return Answer(shown_run(site.redact, run))


@routes.post(
    "/runs/{key:path}/resolve",
    operation_id="resolveCall",
    response_model=ShownRun,
    responses=acting_on_run(),
)
async def resolve(site: SiteOf, person: Operator, key: Key, asked: AskedResolution) -> Answer:
    """Say how a call ended that is in doubt."""
    run = await site.app.get(key)
    await run.resolve(asked.call_id, **asked.given(), by=person.name, note=asked.note)
    return Answer(shown_run(site.redact, run))
