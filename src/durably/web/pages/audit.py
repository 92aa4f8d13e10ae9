"""The audit trail: who did what, to what, when."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import page
from durably.web.pages.routing import page_routes
from durably.web.site import SiteOf, Viewer
from durably.web.views.trail import trail_of

routes = page_routes()

PAGE = 50


@routes.get("/audit", name="durably:audit")
async def audit(
    request: Request, site: SiteOf, person: Viewer, run: str = "", before: int | None = None
) -> HTMLResponse:
    """What was done, newest first; to one run, or to everything."""
    found = await site.app.actions(run=run or None, before=before, limit=PAGE + 1)
    rows = trail_of(found[:PAGE], site.redact)
    older = found[PAGE - 1].id if len(found) > PAGE else None
    return page(request, "audit.html", rows=rows, run=run, before=before, older=older)
