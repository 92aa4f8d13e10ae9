"""What a run's page cuts, whole: one value as text, or all of the run as JSON.

Owns the addresses of values; nothing of them is ever taken for a page.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from durably.run import Run
from durably.web.errors import Refusal
from durably.web.pages.rendering import HEADERS
from durably.web.pages.routing import page_routes
from durably.web.pages.run_records import whole
from durably.web.site import Site, SiteOf, Viewer
from durably.web.views.masking import (
    masked_attempt,
    masked_effect,
    masked_message,
    masked_run,
    masked_signal,
)
from durably.web.views.values import fields_of, items_of, parsed

# Opened by itself, it is text: no script, no frame, no form of it does anything.
HARMLESS = HEADERS | {"Content-Security-Policy": "default-src 'none'; sandbox"}

FIELDS = ("args", "result", "error", "output", "traceback", "prompt")

routes = page_routes()


@routes.get("/parts/value/{key:any}", name="durably:run-value")
async def run_value(
    request: Request,
    key: str,
    site: SiteOf,
    person: Viewer,
    field: str = "",
    message: int | None = None,
    part: int | None = None,
    call: str | None = None,
    attempt: int | None = None,
    signal: int | None = None,
) -> Response:
    """One value, whole: of a message, a part of one, a call, an attempt, a signal or the run."""
    run = await site.app.get(key)
    if message is not None:
        value = await _of_message(site, run, message, part)
    elif call is not None:
        found = [e for e in await run.effects() if e.call_id == call]
        value = _field([masked_effect(e, site.redact) for e in found], field)
    elif attempt is not None:
        found = [a for a in await run.attempts() if a.attempt == attempt]
        value = _field([masked_attempt(a, site.redact) for a in found], field)
    elif signal is not None:
        found = [s for s in await run.signals() if s.id == signal]
        value = _field([masked_signal(s, site.redact) for s in found], "payload")
    elif field == "prompt":
        value = site.redact("prompt", parsed((await run.input()).prompt))
    else:
        value = _field([masked_run(run.record, site.redact)], field)
    return Response(_text(value), media_type="text/plain; charset=utf-8", headers=HARMLESS)


@routes.get("/parts/json/{key:any}", name="durably:run-json")
async def run_json(
    request: Request, key: str, site: SiteOf, person: Viewer, download: bool = False
) -> Response:
    """All that the ledger knows of a run, as JSON."""
    run = await site.app.get(key)
    text = json.dumps(await whole(site, run), indent=2)
    headers = dict(HARMLESS)
    if download:
        headers["Content-Disposition"] = f'attachment; filename="{_file_name(key)}.json"'
    return Response(text, media_type="application/json", headers=headers)


async def _of_message(site: Site, run: Run[Any], seq: int, part: int | None) -> Any:
    found = [m for m in await run.last_messages(1, seq + 1) if m.seq == seq]
    if not found:
        raise Refusal(404, f"The run has no message {seq}.")
    body = parsed(masked_message(found[0], site.redact).body)
    if part is None:
        return body
    if part < 0:
        return fields_of(body).get("instructions")
    parts = items_of(fields_of(body).get("parts"))
    if part >= len(parts):
        raise Refusal(404, f"Message {seq} has no part {part}.")
    fields = fields_of(parts[part])
    content = fields.get("args", fields.get("content"))
    return parts[part] if content is None else content


def _field(found: list[Any], field: str) -> Any:
    if not found or (field != "payload" and field not in FIELDS) or not hasattr(found[0], field):
        raise Refusal(404, "The run has no such value.")
    value = getattr(found[0], field)
    return parsed(value) if field in ("args", "result", "output") else value


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _file_name(key: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in key)[:80]
