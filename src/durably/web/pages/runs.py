"""Runs."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import page
from durably.web.site import SiteOf, Viewer

routes = APIRouter(include_in_schema=False)


@routes.get("/runs", name="durably:runs")
async def runs(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """Runs."""
    return page(request, "runs.html")
