"""A run."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import page
from durably.web.site import SiteOf, Viewer

routes = APIRouter(include_in_schema=False)


@routes.get("/runs/{key:path}", name="durably:run")
async def run(request: Request, key: str, site: SiteOf, person: Viewer) -> HTMLResponse:
    """A run."""
    return page(request, "base.html")
