"""Workers and queues."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import page
from durably.web.site import SiteOf, Viewer

routes = APIRouter(include_in_schema=False)


@routes.get("/workers", name="durably:workers")
async def workers(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """Workers and queues."""
    return page(request, "workers.html")
