"""The forms with which people decide about what waits: parts for the page's dialog.

Owns what is read for a form; what is posted goes to `doing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from durably.allowed import call_decisions
from durably.budgets import UsedUp
from durably.run import Run
from durably.web.errors import Refusal
from durably.web.pages.rendering import page
from durably.web.pages.routing import page_routes
from durably.web.site import Site, SiteOf, Viewer, site_of
from durably.web.views.asked import ARGS, Asked, asked
from durably.web.views.forms import form_from_schema
from durably.web.views.masking import masked_effect
from durably.web.views.values import fields_of

routes = page_routes()

HOW = ("approve", "edit", "deny", "answer", "resolve", "raise", "share")

ABOUT_BUDGETS = ("raise", "share")


@routes.get("/parts/decide/{key:any}", name="durably:decide")
async def decide(
    request: Request, key: str, site: SiteOf, person: Viewer, how: str, call_id: str = ""
) -> HTMLResponse:
    """A form for one way to decide about a call, or about a run's budget."""
    if how not in HOW:
        raise Refusal(404, f"Nothing is decided by {how!r}; use one of: {', '.join(HOW)}.")
    if not person.may_act:
        raise Refusal(403, f"{person.name} may look, but not change anything.")
    run = await site.app.get(key)
    call = await _call(site, run, call_id) if how not in ABOUT_BUDGETS else None
    used = _shared(run) if how == "share" else None
    shown: dict[str, Any] = {"run": run, "how": how, "call": call, "used": used}
    return page(request, "parts/decide.html", again=None, noted="", **shown)


async def form_again(
    request: Request, run: Run[Any], form: Mapping[str, Any], errors: Mapping[str, str]
) -> HTMLResponse:
    """The form as somebody had filled it in, with what is wrong at its fields."""
    call = await _call(site_of(request), run, str(form.get("call_id", "")))
    how = "edit" if form.get("how") == "edit" else "answer"
    prefix, name = (ARGS, "schema") if how == "edit" else ("value", "form")
    schema = fields_of(fields_of(call.effect.request).get(name))
    label = "Arguments" if how == "edit" else ""
    again = form_from_schema(schema, prefix=prefix, label=label, errors=errors, posted=form)
    shown: dict[str, Any] = {"run": run, "how": how, "call": call, "used": None, "again": again}
    shown["noted"] = form.get("note", "")
    answered = page(request, "parts/decide.html", status=422, **shown)
    answered.headers.update({"HX-Retarget": "#dialog", "HX-Reswap": "innerHTML"})
    return answered


def _shared(run: Run[Any]) -> UsedUp:
    """The budget that the run shares, and that it waits for."""
    waiting = run.record.waiting_on or {}
    if waiting.get("kind") != "budget" or waiting.get("scope") == "run":
        raise Refusal(409, f"Run {run.key!r} waits for no budget that runs share any more.")
    used = UsedUp.read(waiting)
    if used is None:
        raise Refusal(409, f"Run {run.key!r} does not say for which budget it waits.")
    return used


async def _call(site: Site, run: Run[Any], call_id: str) -> Asked:
    for effect in await run.effects():
        if effect.call_id == call_id:
            allowed = call_decisions(run.record, effect)
            return asked(effect, masked_effect(effect, site.redact), allowed)
    raise Refusal(404, f"Run {run.key!r} has no call {call_id!r}.")
