"""The first page."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import page
from durably.web.pages.routing import page_routes
from durably.web.site import SiteOf, Viewer

routes = page_routes()


@routes.get("/", name="durably:overview")
async def overview(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """What is going on."""
    queues = await site.app.queues()
    return page(request, "overview.html", queues=queues)
