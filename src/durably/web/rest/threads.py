"""Threads: the conversation that their runs continue."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field

from durably import agents
from durably.web.rest.speaking import (
    READING,
    TEXT,
    Answer,
    Model,
    named,
    problems,
    rest_routes,
)
from durably.web.site import SiteOf, Viewer
from durably.web.views.masking import masked_body

routes = rest_routes("threads")

Thread = Annotated[str, named("The thread; it may hold slashes."), TEXT]


class Conversation(Model):
    """What the next run of a thread starts from."""

    messages: Annotated[
        list[Any], Field(description="Pydantic AI's ModelMessages as JSON, of all its runs.")
    ]


@routes.get(
    "/threads/{thread:path}/conversation",
    operation_id="getConversation",
    response_model=Conversation,
    responses=problems(*READING, 404, 409),
)
async def conversation(site: SiteOf, _: Viewer, thread: Thread) -> Answer:
    """The messages of a thread so far; none for one that has no run.

    Calls that a run left without an answer when it ended are answered as the next run sees it.
    """
    found = await site.app.conversation(thread)
    messages: list[Any] = json.loads(agents.history.to_json(found))
    return Answer(Conversation(messages=[masked_body(body, site.redact) for body in messages]))
