"""The first page."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import page
from durably.web.site import SiteOf, Viewer

routes = APIRouter(include_in_schema=False)


@routes.get("/", name="durably:overview")
async def overview(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """What is going on."""
    queues = await site.app.queues()
    return page(request, "overview.html", queues=queues)
