"""What somebody does about a run: cancel, retry, signal, raise its budget."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from durably.web.rest.runs import AskedLimits
from durably.web.rest.shown_runs import ShownRun, shown_run
from durably.web.rest.speaking import (
    Answer,
    Asked,
    Json,
    Key,
    Name,
    Text,
    Word,
    acting_on_run,
    rest_routes,
)
from durably.web.site import Operator, SiteOf

routes = rest_routes("actions")


class AskedSignal(Asked):
    """A signal for a run."""

    name: Annotated[Word, Field(description="What the wait is called that shall take it.")]
    payload: Annotated[Json, Field(description="Any JSON value, which the wait returns.")] = None
    signal_id: Annotated[
        Name | None,
        Field(description="The sender's own id of it: sent again, it does nothing."),
    ] = None


class AskedRaise(AskedLimits):
    """New limits of a run's own budget, of what it spends altogether; one at least."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"not": {"type": "null"}}}}
                for name in AskedLimits.model_fields
            ]
        }
    )

    note: Annotated[Text, Field(description="Why; kept with the decision.")] = ""


@routes.post(
    "/runs/{key:path}/cancel",
    operation_id="cancelRun",
    response_model=ShownRun,
    responses=acting_on_run(),
)
async def cancel(site: SiteOf, person: Operator, key: Key) -> Answer:
    """Cancel it; an executing attempt stops within a second."""
    run = await site.app.get(key)
    return Answer(shown_run(site.redact, await run.cancel(by=person.name)))


@routes.post(
    "/runs/{key:path}/retry",
    operation_id="retryRun",
    response_model=ShownRun,
    responses=acting_on_run(),
)
async def retry(site: SiteOf, person: Operator, key: Key) -> Answer:
    """Let a discarded or cancelled run go on where it was, or accept a changed agent."""
    run = await site.app.get(key)
    return Answer(shown_run(site.redact, await run.retry(by=person.name)))


@routes.post(
    "/runs/{key:path}/signal",
    operation_id="signalRun",
    response_model=ShownRun,
    responses=acting_on_run(),
)
async def signal(site: SiteOf, person: Operator, key: Key, asked: AskedSignal) -> Answer:
    """Send a signal; if nothing waits for it yet, the next wait of its name takes it."""
    run = await site.app.signal(
        key, asked.name, asked.payload, signal_id=asked.signal_id, by=person.name
    )
    return Answer(shown_run(site.redact, run))


@routes.post(
    "/runs/{key:path}/budget",
    operation_id="raiseRunBudget",
    response_model=ShownRun,
    responses=acting_on_run(),
)
async def raise_budget(site: SiteOf, person: Operator, key: Key, asked: AskedRaise) -> Answer:
    """Set limits of its own budget; those that are not given stay."""
    run = await site.app.get(key)
    await run.raise_budget(**asked.model_dump(), by=person.name)
    return Answer(shown_run(site.redact, run))
