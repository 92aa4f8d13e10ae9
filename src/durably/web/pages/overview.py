"""The first page: what there is, what ended lately, what waits for people, who works.

Owns what is read for it; what is made of it is the views'.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from durably.records import GROUPS
from durably.web.errors import Refusal
from durably.web.pages.rendering import page
from durably.web.pages.routing import page_routes
from durably.web.site import Site, SiteOf, Viewer
from durably.web.views.overview import DEFAULT_WINDOW, WINDOWS, overview_of
from durably.web.views.working import queues_of, workers_of

routes = page_routes()


@routes.get("/", name="durably:overview")
async def overview(
    request: Request, site: SiteOf, person: Viewer, window: str = DEFAULT_WINDOW, by: str = ""
) -> HTMLResponse:
    """What is going on."""
    shown = await _shown(site, window, by)
    choices = {"windows": WINDOWS, "groups": GROUPS}
    return page(request, "overview.html", may_act=person.may_act, **choices, **shown)


@routes.get("/parts/overview", name="durably:overview-part")
async def overview_part(
    request: Request, site: SiteOf, person: Viewer, window: str = DEFAULT_WINDOW, by: str = ""
) -> HTMLResponse:
    """The same, as it is now."""
    shown = await _shown(site, window, by)
    return page(request, "parts/overview.html", may_act=person.may_act, **shown)


async def _shown(site: Site, window: str, by: str) -> dict[str, Any]:
    if window not in WINDOWS:
        raise Refusal(404, f"There is no window {window!r}; use one of: {', '.join(WINDOWS)}.")
    if by and by not in GROUPS:
        raise Refusal(404, f"Nothing is told apart by {by!r}; use one of: {', '.join(GROUPS)}.")
    seconds, _, _ = WINDOWS[window]
    statistics = await site.app.statistics(seconds, by=by or None)
    return {
        "window": window,
        "by": by,
        "overview": overview_of(statistics),
        "workers": workers_of(await site.app.workers()),
        "queues": queues_of(await site.app.queues(open_only=True)),
    }
