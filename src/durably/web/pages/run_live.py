"""A run's page while the run goes on: what is new, as server-sent events with HTML in them.

Owns what is sent and when. A fragment takes the place of what has its id on the page, so that the
same may be sent twice; what a slow browser has not read yet is sent as it is by then.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.responses import StreamingResponse

from durably import Draft
from durably.records import Event
from durably.run import LAST_POSITION, Run
from durably.web.pages.rendering import fragment
from durably.web.pages.routing import page_routes
from durably.web.pages.run_tabs import turns_for
from durably.web.site import Site, SiteOf, Viewer
from durably.web.sse import ServerEvent, event_stream
from durably.web.stopping import stopping
from durably.web.views.drafts import making_of
from durably.web.views.masking import masked_message

GAP_SECONDS = 0.1
"""The least time from one batch to the next."""

QUIET = frozenset({"delta", "withdrawn"})
"""Events that say nothing of the run's state."""

routes = page_routes()


@routes.get("/parts/live/{key:any}", name="durably:run-live")
async def run_live(
    request: Request,
    key: str,
    site: SiteOf,
    person: Viewer,
    after: int = 0,
    last_event_id: Annotated[str, Header()] = "",
) -> StreamingResponse:
    """What happens to a run from an event on, until it ends."""
    run = await site.app.get(key)
    if last_event_id.isdecimal():
        after = int(last_event_id[:18])
    # From where the message in the making began: of its pieces none may be missing.
    after = min(after, await run.cursor())
    return event_stream(Live(request, site, run, after).stream(), stopping(site.app))


class Live:
    """What one browser has yet to be told of a run."""

    def __init__(self, request: Request, site: Site, run: Run[Any], after: int) -> None:
        self._request = request
        self._site = site
        self._run = run
        self._after = after
        self._news = asyncio.Event()
        self._draft = Draft()
        self._draft_changed = False
        self._first_message: int | None = None
        self._withdrawn: list[Event] = []
        self._state_changed = False

    async def stream(self) -> AsyncGenerator[ServerEvent]:
        """What is new, until the run has ended and all is said."""
        watching = asyncio.create_task(self._watch())
        try:
            while not (watching.done() and not self._news.is_set()):
                await self._news.wait()
                self._news.clear()
                async for said in self._say():
                    yield said
                await asyncio.sleep(GAP_SECONDS)
            watching.result()
            yield _event("end", {}, self._after)
        finally:
            watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self) -> None:
        try:
            async for event in self._run.watch(self._after):
                self._take(event)
                self._after = event.id
                self._news.set()
        finally:
            self._news.set()

    def _take(self, event: Event) -> None:
        self._draft_changed |= self._draft.apply(event)
        if event.kind not in QUIET:
            self._state_changed = True
        if event.kind == "step":
            positions = [seq for seq in event.data.get("messages", ()) if isinstance(seq, int)]
            known = LAST_POSITION if self._first_message is None else self._first_message
            self._first_message = min([known, *positions])
        if event.kind == "withdrawn":
            self._withdrawn.append(event)

    async def _say(self) -> AsyncGenerator[ServerEvent]:
        """All that is new by now."""
        after, first, withdrawn = self._after, self._first_message, self._withdrawn
        made, moved = self._draft_changed, self._state_changed
        self._first_message, self._withdrawn = None, []
        self._draft_changed = self._state_changed = False
        if withdrawn:
            html = self._fragment("run/withdrawn.html", events=withdrawn)
            yield _event("fragments", {"html": html}, after)
        if made or moved or first is not None:
            html = await self._conversation(first)
            yield _event("fragments", {"html": html}, after)
        if moved:
            yield _event("moved", {}, after)

    async def _conversation(self, first: int | None) -> str:
        """The messages from one position on, with the response before it, whose calls these
        answer; the last response alone where none is new; and what is in the making."""
        before = LAST_POSITION if first is None else first
        response = [m for m in await self._run.last_messages(2, before) if m.kind == "response"]
        new = [] if first is None else await self._run.messages(first - 1)
        mask = self._site.redact
        messages = [masked_message(message, mask) for message in [*response[-1:], *new]]
        making = making_of(self._draft.to_json(), messages, mask, hidden=self._site.hides)
        return self._fragment(
            "run/news.html",
            turns=await turns_for(self._site, self._run, messages, making) if messages else [],
            making=making.turn(self._run.record.attempt),
        )

    def _fragment(self, template: str, **shown: Any) -> str:
        return fragment(self._request, template, key=self._run.key, **shown)


def _event(name: str, data: dict[str, Any], cursor: int) -> ServerEvent:
    return ServerEvent(json.dumps(data), name, str(cursor))
