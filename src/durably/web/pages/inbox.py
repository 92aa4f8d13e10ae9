"""Inbox."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from durably.web.pages.rendering import HEADERS, page
from durably.web.site import SiteOf, Viewer

routes = APIRouter(include_in_schema=False)


@routes.get("/inbox", name="durably:inbox")
async def inbox(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """Inbox."""
    return page(request, "inbox.html")


@routes.get("/parts/inbox-count", name="durably:inbox-count")
async def inbox_count(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """How much waits for people; nothing where nothing does."""
    waiting = len(await site.app.inbox())
    return HTMLResponse(str(waiting) if waiting else "", headers=HEADERS)
