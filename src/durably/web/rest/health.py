"""Whether the process, and what it needs, is there: for whatever starts and watches servers."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from durably.errors import DurablyError
from durably.web.rest.speaking import Answer, Model
from durably.web.routing import RestRoute
from durably.web.site import Site, SiteOf

log = logging.getLogger("durably.web")

routes = APIRouter(tags=["health"], route_class=RestRoute)


class Health(Model):
    """This process answers."""

    status: Annotated[Literal["ok"], Field(description="`ok`.")] = "ok"


class Check(Model):
    """One thing that was looked at."""

    subject: Annotated[str, Field(description="`ledger` or `workers`.")]
    ok: Annotated[bool, Field(description="Whether it is as it should be.")]
    text: Annotated[str, Field(description="What was found.")]


class Readiness(Model):
    """Whether runs that are enqueued now are executed."""

    ready: Annotated[bool, Field(description="Whether all is as it should be.")]
    checks: Annotated[list[Check], Field(description="What was looked at.")]


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
    checks = await _checks(site)
    ready = all(check.ok for check in checks)
    return Answer(Readiness(ready=ready, checks=checks), 200 if ready else 503)


async def _checks(site: Site) -> list[Check]:
    try:
        workers = await site.app.workers()
    except DurablyError as error:
        # Not the message: it may say more than strangers need to know.
        log.warning("not ready: %s", error)
        return [Check(subject="ledger", ok=False, text=f"{type(error).__name__}; see the log.")]
    alive = sum(worker.alive for worker in workers)
    return [
        Check(subject="ledger", ok=True, text="It answers, and its schema is as it should be."),
        Check(subject="workers", ok=alive > 0, text=f"{alive} alive."),
    ]
