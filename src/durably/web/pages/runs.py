"""The runs: looking for them. What is done to many of them is `bulk`'s."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from durably.lifecycle import RunState
from durably.web.pages.rendering import page
from durably.web.pages.routing import page_routes
from durably.web.site import Site, SiteOf, Viewer
from durably.web.views.finding import Wanted, wanted
from durably.web.views.masking import masked_run

routes = page_routes()

PAGE = 50


@routes.get("/runs", name="durably:runs")
async def runs(
    request: Request, site: SiteOf, person: Viewer, before: int | None = None
) -> HTMLResponse:
    """The runs that match, newest first."""
    shown = await _found(site, wanted(request.query_params.multi_items()), before)
    return page(request, "runs.html", states=list(RunState), may_act=person.may_act, **shown)


@routes.get("/parts/runs", name="durably:runs-part")
async def runs_part(
    request: Request, site: SiteOf, person: Viewer, before: int | None = None
) -> HTMLResponse:
    """The same, as they are now."""
    shown = await _found(site, wanted(request.query_params.multi_items()), before)
    return page(request, "parts/runs.html", may_act=person.may_act, **shown)


async def _found(site: Site, wanted: Wanted, before: int | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"wanted": wanted, "before": before}
    if wanted.wrong:
        return shown | {"runs": [], "next_before": None, "back_to": None}
    found = await site.app.search(**wanted.filters, before=before, limit=PAGE)
    short = found.next_before is not None and len(found.runs) < PAGE
    return shown | {
        "runs": [masked_run(run.record, site.redact) for run in found.runs],
        "next_before": found.next_before,
        "back_to": await _time_of(site, found.next_before) if short else None,
    }


async def _time_of(site: Site, run_id: int | None) -> datetime | None:
    """When the run was enqueued that a search has come to."""
    if run_id is None:
        return None
    newest = await site.app.runs(before=run_id + 1, limit=1)
    return newest[0].record.inserted_at if newest else None
