"""A run as it happens, as server-sent events that a browser's EventSource reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import Header, Query
from fastapi.responses import Response, StreamingResponse

from durably.run import Run
from durably.web.following import NewMessages
from durably.web.rest.shown_runs import shown_event, shown_message
from durably.web.rest.speaking import MAX_ID, Answer, Key, of_run, rest_routes
from durably.web.site import Site, SiteOf, Viewer
from durably.web.sse import ServerEvent, event_stream
from durably.web.stopping import stopping

routes = rest_routes("history")


@routes.get(
    "/runs/{key:path}/watch",
    operation_id="watchRun",
    response_class=StreamingResponse,
    responses=of_run()
    | {
        200: {
            "description": "Events: `id` is the cursor, `event` the kind, `data` the event as "
            "JSON; a `step` brings the messages that it made durable.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The run is final and all its events were seen: do not come back."},
    },
)
async def watch(
    site: SiteOf,
    _: Viewer,
    key: Key,
    after: Annotated[
        int, Query(ge=0, le=MAX_ID, description="The id of the last event already seen.")
    ] = 0,
    last_event_id: Annotated[
        str | None,
        Header(description="The same, as EventSource sends it when it comes back; it wins."),
    ] = None,
) -> Response:
    """The events as they come, until the run is final.

    A reader that comes back with the last id it has seen misses nothing and sees nothing twice.
    """
    if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 20:
        after = min(int(last_event_id), MAX_ID)
    run = await site.app.get(key)
    if run.state.final and not await run.events(after, deltas=False):
        return Response(status_code=204)
    return event_stream(_events(site, run, after), stopping(site.app))


async def _events(site: Site, run: Run[Any], after: int) -> AsyncGenerator[ServerEvent]:
    messages = NewMessages(run)
    async for event in run.watch(after, deltas=not site.hides):
        shown = shown_event(site.redact, event).model_dump()
        if event.kind == "step":
            shown["messages"] = [
                shown_message(site.redact, message).model_dump()
                for message in await messages.of(event)
            ]
        data = Answer(shown).body
        yield ServerEvent(bytes(data).decode(), event.kind, str(event.id))
