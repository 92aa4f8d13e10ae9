"""The inbox: what waits for people, and what has just been decided, by whom.

Owns what is read for it; the forms to decide are `deciding`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from durably.allowed import call_decisions
from durably.errors import RunNotFound
from durably.records import INBOX_KINDS
from durably.web.pages.rendering import HEADERS, page
from durably.web.pages.routing import page_routes
from durably.web.site import Site, SiteOf, Viewer
from durably.web.views.masking import masked_effect
from durably.web.views.waiting import (
    GONE_FOR,
    MOST,
    MOST_GONE,
    Listed,
    Seen,
    gone,
    listed,
    merged,
    place_of,
)

routes = page_routes()

FILTERS = ("kind", "agent", "queue", "tag")

MOST_COUNTED = 99


@routes.get("/inbox", name="durably:inbox")
async def inbox(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """Everything that waits for people, oldest first."""
    filters = _filters(request.query_params.multi_items())
    shown = await _list(site, filters, ())
    return page(
        request, "inbox.html", kinds=INBOX_KINDS, filters=filters, may_act=person.may_act, **shown
    )


@routes.post("/parts/inbox", name="durably:inbox-list")
async def inbox_list(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """The list as it is now, by what a page shows: ``shown``, and the page's filters. A read."""
    form = (await request.form()).multi_items()
    texts = [(name, value) for name, value in form if isinstance(value, str)]
    seen = [Seen.from_json(value) for name, value in texts if name == "shown"]
    filters = _filters(texts)
    shown = await _list(site, filters, [one for one in seen if one is not None][: 2 * MOST])
    return page(request, "parts/inbox.html", filters=filters, may_act=person.may_act, **shown)


@routes.get("/parts/inbox-count", name="durably:inbox-count")
async def inbox_count(request: Request, site: SiteOf, person: Viewer) -> HTMLResponse:
    """How much waits for people; nothing where nothing does."""
    waiting = len(await site.app.inbox(limit=MOST_COUNTED + 1))
    text = f"{MOST_COUNTED}+" if waiting > MOST_COUNTED else str(waiting or "")
    return HTMLResponse(text, headers=HEADERS)


def _filters(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in given if name in FILTERS and value}


async def _list(site: Site, filters: dict[str, str], seen: Sequence[Seen]) -> dict[str, Any]:
    found = await site.app.inbox(
        kind=filters.get("kind"),
        agent=filters.get("agent"),
        queue=filters.get("queue"),
        tag=filters.get("tag"),
        limit=MOST + 1,
    )
    waiting = [listed(item, site.redact) for item in found[:MOST]]
    places = {place_of(item) for item in found}
    now = datetime.now(UTC)
    missing = [one for one in seen if one.place not in places and not _faded(one, now)]
    looked_at = [await _gone(site, one, now) for one in missing[-MOST_GONE:]]
    decided = [one for one in looked_at if one is not None]
    return {"items": merged(seen, waiting, decided), "more": len(found) > MOST}


def _faded(seen: Seen, now: datetime) -> bool:
    return seen.gone_at is not None and now - seen.gone_at > GONE_FOR


async def _gone(site: Site, seen: Seen, now: datetime) -> Listed | None:
    """What became of a thing that a page shows; None if it waits all the same."""
    at = seen.gone_at or now
    try:
        run = await site.app.get(seen.place.run_key)
    except RunNotFound:
        return gone(seen.place, None, (), at)
    calls = {effect.call_id: effect for effect in await run.effects()}
    effect = calls.get(seen.place.call_id)
    if effect is not None and call_decisions(run.record, effect):
        return None
    masked = None if effect is None else masked_effect(effect, site.redact)
    return gone(seen.place, masked, await run.decisions(), at)
