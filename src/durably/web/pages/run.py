"""The page of a run: its head, and what is under each tab.

Owns what is read for each; how it is shown is the views' and the templates'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from durably.run import Run
from durably.web.errors import Refusal
from durably.web.pages import run_tabs
from durably.web.pages.rendering import page
from durably.web.pages.routing import page_routes
from durably.web.pages.run_head import head_of
from durably.web.site import Site, SiteOf, Viewer

routes = page_routes()

type Tab = Callable[[Site, Run[Any], int | None], Awaitable[dict[str, Any]]]

TABS: dict[str, tuple[str, Tab]] = {
    "conversation": ("Conversation", run_tabs.conversation),
    "timeline": ("Timeline", run_tabs.timeline),
    "effects": ("Effects", run_tabs.effects),
    "attempts": ("Attempts", run_tabs.attempts),
    "usage": ("Usage", run_tabs.usage),
    "events": ("Events", run_tabs.events),
    "raw": ("Raw", run_tabs.raw),
}
"""What the page shows, one at a time: the tab's name, and what is read for it."""


@routes.get("/runs/{key:any}", name="durably:run")
async def run_page(
    request: Request,
    key: str,
    site: SiteOf,
    person: Viewer,
    tab: str = "conversation",
    before: int | None = None,
) -> HTMLResponse:
    """A run."""
    run = await site.app.get(key)
    shown = await _tab(site, run, tab, before)
    head = await head_of(site, run, person)
    return page(request, "run/page.html", head=head, key=key, tab=tab, tabs=_names(), **shown)


@routes.get("/parts/head/{key:any}", name="durably:run-head")
async def run_head(request: Request, key: str, site: SiteOf, person: Viewer) -> HTMLResponse:
    """What stands above the tabs, as it is now."""
    run = await site.app.get(key)
    return page(request, "run/head.html", head=await head_of(site, run, person), key=key)


@routes.get("/parts/saved/{key:any}", name="durably:run-saved")
async def run_saved(request: Request, key: str, site: SiteOf, person: Viewer) -> HTMLResponse:
    """What resuming saved."""
    run = await site.app.get(key)
    return page(request, "run/saved.html", saved=(await run.timeline()).saved)


@routes.get("/parts/tab/{tab}/{key:any}", name="durably:run-tab")
async def run_tab(
    request: Request,
    tab: str,
    key: str,
    site: SiteOf,
    person: Viewer,
    before: int | None = None,
) -> HTMLResponse:
    """What is under one of the tabs, with the tabs."""
    run = await site.app.get(key)
    shown = await _tab(site, run, tab, before)
    return page(request, "run/tab.html", key=key, tab=tab, tabs=_names(), **shown)


@routes.get("/parts/earlier/{key:any}", name="durably:run-earlier")
async def run_earlier(
    request: Request, key: str, site: SiteOf, person: Viewer, before: int
) -> HTMLResponse:
    """The messages ahead of those that are shown."""
    run = await site.app.get(key)
    shown = await run_tabs.messages_before(site, run, before)
    return page(request, "run/earlier.html", key=key, **shown)


async def _tab(site: Site, run: Run[Any], tab: str, before: int | None) -> dict[str, Any]:
    if tab not in TABS:
        raise Refusal(404, f"A run has no {tab!r}; it has: {', '.join(TABS)}.")
    _, read = TABS[tab]
    return await read(site, run, before)


def _names() -> dict[str, str]:
    return {name: title for name, (title, _) in TABS.items()}
