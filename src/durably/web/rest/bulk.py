"""The same done to many runs: those with some keys, or those that filters find."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from durably.lifecycle import RunState
from durably.searching import MOST_AT_ONCE, BulkResult
from durably.web.rest.runs import Filters
from durably.web.rest.speaking import (
    MAX_ID,
    NUMBER,
    Answer,
    Asked,
    Model,
    Name,
    acting,
    rest_routes,
)
from durably.web.site import Operator, SiteOf

routes = rest_routes("actions")


class Where(Filters):
    """Which runs; something has to be given."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["state"], "properties": {"state": {"minItems": 1}}},
                *(
                    {"required": [name], "properties": {name: {"type": "string"}}}
                    for name in Filters.model_fields
                    if name != "state"
                ),
            ]
        }
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("it matches every run: say which")
        return self


class AskedBulk(Asked):
    """Which runs, by `keys` or by `where`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["keys"], "properties": {"keys": {"type": "array"}}},
                {"required": ["where"], "properties": {"where": {"type": "object"}}},
            ]
        }
    )

    keys: Annotated[
        Annotated[list[Name], Field(min_length=1, max_length=MOST_AT_ONCE)] | None,
        Field(description="Their keys."),
    ] = None
    where: Annotated[Where | None, Field(description="What they have to match.")] = None
    before: Annotated[
        Annotated[int, Field(ge=0, le=MAX_ID), NUMBER] | None,
        Field(description="`next` of the answer before; with `where`."),
    ] = None
    limit: Annotated[
        int, Field(ge=1, le=MOST_AT_ONCE, description="How many at most; with `where`."), NUMBER
    ] = 100

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.keys is None) == (self.where is None):
            raise ValueError("give keys or where, one of them")
        return self

    def options(self) -> dict[str, Any]:
        """As the application takes them."""
        filters = self.where.model_dump() if self.where else {}
        return filters | {"keys": self.keys, "before": self.before, "limit": self.limit}


class ShownOutcome(Model):
    """What became of one of them."""

    key: Annotated[str, Field(description="The run.")]
    done: Annotated[bool, Field(description="False: it was refused, and stays as it was.")]
    state: Annotated[RunState | None, Field(description="Its state now; null: there is no run.")]
    text: Annotated[str, Field(description="A sentence that says so, or why it was refused.")]


class ShownBulk(Model):
    """What became of them."""

    runs: Annotated[list[ShownOutcome], Field(description="Each that was looked at.")]
    done: Annotated[int, Field(description="To how many of them it was done.")]
    next: Annotated[int | None, Field(description="`before` to go on with; null: nothing is left.")]


@routes.post(
    "/bulk/cancel",
    operation_id="cancelRuns",
    response_model=ShownBulk,
    responses=acting(),
)
async def cancel_runs(site: SiteOf, person: Operator, asked: AskedBulk) -> Answer:
    """Cancel many runs; each is cancelled, or refused, by itself."""
    return _shown(await site.app.cancel_runs(**asked.options(), by=person.name))


@routes.post(
    "/bulk/retry",
    operation_id="retryRuns",
    response_model=ShownBulk,
    responses=acting(),
)
async def retry_runs(site: SiteOf, person: Operator, asked: AskedBulk) -> Answer:
    """Let many discarded, cancelled or waiting runs go on; each by itself."""
    return _shown(await site.app.retry_runs(**asked.options(), by=person.name))


def _shown(found: BulkResult) -> Answer:
    runs = [ShownOutcome.model_validate(run) for run in found.runs]
    return Answer(ShownBulk(runs=runs, done=found.done, next=found.next_before))
