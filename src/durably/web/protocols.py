"""Chat front ends that talk to a durable run: the AG-UI and Vercel AI protocols over HTTP.

Owns which run a message means, and which chat a browser comes back to; the protocols' own words are
in `durably.agents.ui`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import ValidationError

from durably import agents
from durably.allowed import call_decisions
from durably.errors import ConfigError, RunFailed
from durably.lifecycle import RunState
from durably.records import Effect, StoredMessage
from durably.run import Run
from durably.web.errors import Refusal, printable
from durably.web.following import NewMessages
from durably.web.rest.speaking import MAX_NAME_CHARS, TEXT, Answer, parsed
from durably.web.routing import RestRoute
from durably.web.site import Operator, Site, SiteOf, Viewer
from durably.web.sse import event_stream
from durably.web.stopping import stopping
from durably.web.views.masking import masked_body

if TYPE_CHECKING:
    from durably.agents.ui.ag_ui import DurableStream as AgUiStream
    from durably.agents.ui.asking import Asked
    from durably.agents.ui.telling import Told
    from durably.agents.ui.vercel import DurableStream as VercelStream

MAX_RUNS = 200
"""Of how many runs a chat shows the messages when it is opened again."""

ENDS = frozenset({"withdrawn", "claimed", "discarded", "cancelled"})
"""Events after which what was shown of a message will not come."""

routes = APIRouter(prefix="/api/ui", route_class=RestRoute, include_in_schema=False)

Agent = Annotated[str, Path(max_length=MAX_NAME_CHARS), TEXT]
Chat = Annotated[str, Path(max_length=MAX_NAME_CHARS), TEXT]


@routes.post("/ag-ui/{agent}")
async def ag_ui(request: Request, site: SiteOf, person: Operator, agent: Agent) -> Response:
    """A message of a user in an AG-UI chat: what becomes of it, as it happens."""
    protocol = agents.ui.ag_ui
    given, asked = _read(protocol.read, await request.body())
    run = await _run_of(site, agent, asked, person.name)
    return _stream(site, run, protocol.stream(given))


@routes.post("/vercel/{agent}")
async def vercel(
    request: Request, site: SiteOf, person: Operator, agent: Agent, sdk: Literal["5", "6"] = "5"
) -> Response:
    """A message of a user in a chat of the Vercel AI SDK: what becomes of it, as it happens.

    Args:
        sdk: the version of the AI SDK; from 6 on it is told which calls wait for approval.
    """
    protocol = agents.ui.vercel
    asked = _read(protocol.read, await request.body())
    run = await _run_of(site, agent, asked, person.name)
    return _stream(site, run, protocol.stream(run.key, 6 if sdk == "6" else 5))


@routes.get("/vercel/{agent}/{chat:path}/stream")
async def resume(
    site: SiteOf, _: Viewer, agent: Agent, chat: Chat, sdk: Literal["5", "6"] = "5"
) -> Response:
    """The answer that is being made in a chat, from its beginning; 204 if none is."""
    found = await site.app.runs(thread=chat, agent=agent, limit=1)
    if not found or found[0].state.final:
        return Response(status_code=204)
    stream = agents.ui.vercel.stream(found[0].key, 6 if sdk == "6" else 5)
    return _stream(site, found[0], stream)


@routes.get("/vercel/{agent}/{chat:path}/messages")
async def messages(site: SiteOf, _: Viewer, agent: Agent, chat: Chat) -> Response:
    """What a chat begins with when it is opened again: all but the answer that is being made."""
    found = await site.app.runs(thread=chat, agent=agent, limit=MAX_RUNS)
    said: list[Any] = []
    for run in reversed(found):
        stored = await run.messages()
        # What is said of the one that goes on is its stream's.
        said += _decoded(site, stored if run.state.final else stored[:1])
        if not stored and not run.state.final:
            prompt = site.redact("prompt", parsed((await run.input()).prompt))
            said.append(agents.ui.asking.request(agents.codec.decode_prompt(json.dumps(prompt))))
    return Answer({"messages": agents.ui.vercel.dumped(said)})


# --- which run


def _read[T](read: Callable[[bytes], T], body: bytes) -> T:
    try:
        return read(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        said = printable(f"This is no request of the protocol. {where}: {first['msg']}")
        raise Refusal(422, said) from None


async def _run_of(site: Site, agent: str, asked: Asked, by: str) -> Run[Any]:
    """The run that a message means: the same one whenever it is sent."""
    if not asked.message or not 0 < len(asked.thread) <= MAX_NAME_CHARS:
        raise ConfigError("A message needs an id, and a chat an id of up to 500 characters.")
    said = json.dumps([agent, asked.thread, asked.message])
    key = f"chat-{hashlib.sha256(said.encode()).hexdigest()[:32]}"
    run: Run[Any] = await site.app.enqueue(agent, asked.prompt, key=key, thread=asked.thread)
    if asked.again and run.state.final and "retry" in run.actions_allowed:
        await run.retry(by=by)
    return run


# --- what is told


def _stream(site: Site, run: Run[Any], stream: AgUiStream | VercelStream) -> Response:
    async def written() -> AsyncGenerator[str]:
        told: Any = _told(site, run)
        async for text in stream.encode_stream(stream.transform_stream(told)):  # pyright: ignore
            yield text

    headers = dict(stream.response_headers or {})
    return event_stream(written(), stopping(site.app), headers=headers)


async def _told(site: Site, run: Run[Any]) -> AsyncGenerator[Told]:
    """What there is to tell of a run, until it is final.

    Raises:
        RunFailed: it ended without an output.
    """
    telling, new = agents.ui.telling.Telling(), NewMessages(run)
    waiting = False
    async for event in run.watch(deltas=not site.hides):
        found: Iterable[Told] = ()
        if event.kind == "delta":
            found = telling.delta(event.data)
        elif event.kind in ENDS:
            found = telling.withdraw()
        for told in found:
            yield told
        for stored in await new.of(event):
            (message,) = _decoded(site, [stored])
            for told in telling.whole(stored.seq, message):
                yield told
        asks = run.state is RunState.SUSPENDED and not run.record.in_line
        if event.kind == "suspended" and asks:
            waiting = True
            yield await _waiting(run, telling.told_id)
        elif event.kind == "claimed" and waiting:
            waiting = False
            yield agents.ui.telling.Waiting(None)
    for told in telling.end():
        yield told
    try:
        run.output()
    except RunFailed as error:
        raise RunFailed(run.key, str(site.redact("error", str(error)))) from None


async def _waiting(run: Run[Any], told_id: Callable[[str], str]) -> Told:
    """What a run waits for, and which of its calls somebody has to decide about."""
    asked = [effect for effect in await run.effects() if call_decisions(run.record, effect)]
    calls = [_asked(run, effect, told_id) for effect in asked]
    told = {"run": run.key, "waits": run.describe_waiting(), "calls": calls}
    approvals = [call["tool_call_id"] for call in calls if "approve" in call["decisions"]]
    return agents.ui.telling.Waiting(told, tuple(approvals))


def _asked(run: Run[Any], effect: Effect, told_id: Callable[[str], str]) -> dict[str, Any]:
    return {
        "call_id": effect.call_id,
        "tool_call_id": told_id(effect.tool_call_id),
        "tool_name": effect.tool_name,
        "decisions": list(call_decisions(run.record, effect)),
    }


def _decoded(site: Site, stored: Iterable[StoredMessage]) -> list[Any]:
    """Stored messages as pydantic-ai's own, with what may not be seen hidden."""
    return [
        agents.history.message_from_json(
            json.dumps(masked_body(parsed(message.body), site.redact))
            if site.hides
            else message.body,
            f"message {message.seq}",
        )
        for message in stored
    ]
