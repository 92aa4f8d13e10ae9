"""What people do about queues: the posts that pause, resume and scale them, and the form to scale.

Owns how a form is read and what is said afterwards.
"""

from __future__ import annotations

from collections.abc import Awaitable

from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.responses import RedirectResponse, Response

from durably.errors import ConfigError
from durably.web.errors import wrong
from durably.web.pages.rendering import page, path_of
from durably.web.pages.routing import page_routes, same_site
from durably.web.site import Operator, SiteOf, Viewer

routes = page_routes()


@routes.post("/do/pause/{queue:path}", name="durably:pause")
async def pause(request: Request, queue: str, site: SiteOf, person: Operator) -> Response:
    """Let no attempt of a queue begin."""
    done = site.app.pause(queue, by=person.name)
    return await _said(request, done, f"Queue {queue!r} is paused; what is under way goes on.")


@routes.post("/do/resume/{queue:path}", name="durably:resume")
async def resume(request: Request, queue: str, site: SiteOf, person: Operator) -> Response:
    """Let attempts of a queue begin again."""
    done = site.app.resume(queue, by=person.name)
    return await _said(request, done, f"Queue {queue!r} goes on.")


@routes.post("/do/scale/{queue:path}", name="durably:scale")
async def scale(request: Request, queue: str, site: SiteOf, person: Operator) -> Response:
    """Let every worker execute so many runs of a queue at once; with nothing, as it was started."""

    async def scaled() -> None:
        text = str((await request.form()).get("limit", "")).strip()
        await site.app.scale(queue, _limit(text), by=person.name)

    return await _said(request, scaled(), f"Queue {queue!r} is scaled.")


@routes.get("/parts/scale/{queue:path}", name="durably:scaling")
async def scaling(request: Request, queue: str, site: SiteOf, person: Viewer) -> HTMLResponse:
    """The form to scale a queue, for the page's dialog."""
    found = next((q for q in await site.app.queues() if q.queue == queue), None)
    limit = found.limit if found else None
    served_by = found.served_by if found else {}
    return page(request, "parts/scale.html", queue=queue, limit=limit, served_by=served_by)


def _limit(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdecimal():
        raise ConfigError(f"{text[:40]!r} is no number of runs.")
    return int(text[:9])


async def _said(request: Request, done: Awaitable[object], text: str) -> Response:
    """Wait until it is done, and say so: in the page's own place, or on the page itself."""
    if not request.headers.get("hx-request"):
        await done
        back = str((await request.form()).get("next", "")) or path_of(request, "durably:workers")
        return RedirectResponse(same_site(request, back), 303)
    try:
        await done
    except Exception as error:
        found = wrong(error)
        if found is None:
            raise
        return page(
            request, "parts/said.html", status=found.status, text=found.detail, refused=True
        )
    answered = page(request, "parts/said.html", text=text, refused=False)
    answered.headers["HX-Trigger"] = "durably:changed"
    return answered
