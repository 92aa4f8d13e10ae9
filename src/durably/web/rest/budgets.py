"""Budgets that runs share: of a thread, or of all with a tag."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from durably.budgets import SharedBudget
from durably.web.errors import Refusal
from durably.web.rest.runs import AskedBudget, AskedLimits
from durably.web.rest.speaking import (
    READING,
    TEXT,
    Answer,
    Model,
    acting,
    fields_of,
    named,
    problems,
    rest_routes,
)
from durably.web.site import Operator, SiteOf, Viewer

routes = rest_routes("budgets")

Scope = Annotated[Literal["thread", "tag"], Path(description="Whose runs share it.")]
Sharer = Annotated[str, named("Which thread or tag."), TEXT]


class AskedSharedBudget(AskedBudget):
    """A budget that limits something."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
                for name in AskedLimits.model_fields
            ]
        }
    )


class ShownSpent(Model):
    """What was spent."""

    requests: Annotated[int, Field(description="Model requests.")]
    tokens: Annotated[int, Field(description="Input and output tokens together.")]
    tool_calls: Annotated[int, Field(description="Calls of tools.")]
    nanousd: Annotated[int, Field(description="Billionths of a US dollar, as far as known.")]


class ShownSharedBudget(Model):
    """A budget that runs share, and what they have spent of it."""

    scope: Annotated[str, Field(description="`thread` or `tag`: whose runs share it.")]
    name: Annotated[str, Field(description="Which thread or tag.")]
    limits: Annotated[dict[str, Any], Field(description="The limits, and what happens there.")]
    spent: Annotated[ShownSpent, Field(description="By all these runs, since it was first set.")]
    changed_at: Annotated[datetime, Field(description="When its limits were set last.")]


class SharedBudgets(Model):
    """Every shared budget."""

    budgets: Annotated[list[ShownSharedBudget], Field(description="In no order that counts.")]


def shown_budget(budget: SharedBudget) -> ShownSharedBudget:
    """A shared budget."""
    fields = fields_of(budget, ShownSharedBudget)
    return ShownSharedBudget.model_validate(fields | {"limits": budget.limits.to_json()})


@routes.get(
    "/budgets",
    operation_id="listBudgets",
    response_model=SharedBudgets,
    responses=problems(*READING),
)
async def budgets(site: SiteOf, _: Viewer) -> Answer:
    """Every budget that runs share, with what was spent of it."""
    found = await site.app.budgets()
    return Answer(SharedBudgets(budgets=[shown_budget(budget) for budget in found]))


@routes.put(
    "/budgets/{scope}/{name:path}",
    operation_id="setBudget",
    response_model=ShownSharedBudget,
    responses=acting(404),
)
async def set_budget(
    site: SiteOf, person: Operator, scope: Scope, name: Sharer, asked: AskedSharedBudget
) -> Answer:
    """Limit what all runs of a thread, or with a tag, may spend together.

    Set again, its limits change and what was spent stays; runs that wait for it go on if it has
    room now.
    """
    record = await site.app.set_budget(asked.budget(), **{scope: name}, by=person.name)
    return Answer(shown_budget(record))


@routes.delete(
    "/budgets/{scope}/{name:path}",
    operation_id="removeBudget",
    status_code=204,
    responses=acting(404),
)
async def remove_budget(site: SiteOf, person: Operator, scope: Scope, name: Sharer) -> Response:
    """Limit these runs together no more, and forget what they spent."""
    there = any((b.scope, b.name) == (scope, name) for b in await site.app.budgets())
    if not there:
        raise Refusal(404, f"There is no budget of {scope} {name!r}.")
    await site.app.remove_budget(**{scope: name}, by=person.name)
    return Response(status_code=204)
