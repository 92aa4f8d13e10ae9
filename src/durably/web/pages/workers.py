"""Workers and queues: who works, how much, and on what."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import page
from durably.web.pages.routing import page_routes
from durably.web.site import Site, SiteOf, Viewer
from durably.web.views.working import queues_of, workers_of

routes = page_routes()


@routes.get("/workers", name="durably:workers")
async def workers(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """The page."""
    shown = await _working(site)
    return page(request, "workers.html", may_act=person.may_act, **shown)


@routes.get("/parts/workers", name="durably:workers-part")
async def workers_part(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """What is on it, as it is now."""
    shown = await _working(site)
    return page(request, "parts/working.html", may_act=person.may_act, **shown)


async def _working(site: Site) -> dict[str, Any]:
    workers = await site.app.workers()
    queues = await site.app.queues(open_only=True)
    return {"workers": workers_of(workers), "queues": queues_of(queues)}
