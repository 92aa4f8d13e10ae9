"""Whether the process, and what it needs, is there: for whatever starts and watches servers."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from durably.web.rest.speaking import Answer, Model
from durably.web.routing import RestRoute
from durably.web.site import SiteOf

log = logging.getLogger("durably.web")

routes = APIRouter(tags=["health"], route_class=RestRoute)


class Health(Model):
    """This process answers."""

    status: Annotated[Literal["ok"], Field(description="`ok`.")] = "ok"


class Check(Model):
    """One thing that was looked at."""

    name: Annotated[str, Field(description="`database`, `schema` or `workers`.")]
    ok: Annotated[bool, Field(description="Whether it is as it should be.")]


class Readiness(Model):
    """Whether runs that are enqueued now are executed."""

    ready: Annotated[bool, Field(description="Whether all is as it should be.")]
    checks: Annotated[list[Check], Field(description="What was looked at, up to what is missing.")]


@routes.api_route("/healthz", methods=["GET"], operation_id="getHealth", response_model=Health)
async def healthz() -> Answer:
    """This process answers; nothing else is looked at."""
    return Answer(Health())


@routes.get(
    "/readyz",
    operation_id="getReadiness",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Something is missing; says what."}},
)
async def readyz(site: SiteOf) -> Answer:
    """The database, its schema, and a live worker; says to anybody what is missing, and no more."""
    found = await site.app.ready()
    for check in found.checks:
        if not check.ok:
            # Not to whoever asks: it may say more than strangers need to know.
            log.warning("not ready: %s", check.text)
    checks = [Check.model_validate(check) for check in found.checks]
    return Answer(Readiness(ready=found.ready, checks=checks), 200 if found.ready else 503)
