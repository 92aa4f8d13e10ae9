"""Audit."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import page
from durably.web.site import SiteOf, Viewer

routes = APIRouter(include_in_schema=False)


@routes.get("/audit", name="durably:audit")
async def audit(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """Audit."""
    return page(request, "audit.html")
