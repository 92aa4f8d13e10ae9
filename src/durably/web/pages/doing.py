"""What people do about runs and their calls: the posts of forms, each by whoever is logged in.

Owns how a form is read and what is said afterwards; what may be done is the API's to say.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from durably.errors import ConfigError
from durably.records import Effect
from durably.run import Run
from durably.web.access import Person
from durably.web.errors import wrong
from durably.web.pages.rendering import page, path_of
from durably.web.pages.routing import page_routes, same_site
from durably.web.site import Operator, SiteOf
from durably.web.views.forms import fields_from, json_from, value_from
from durably.web.views.values import fields_of, is_object, items_of, parsed

routes = page_routes()

type Form = Mapping[str, str]
type Act = Callable[[Run[Any], Form, Person], Awaitable[str]]
"""Does what a form says and returns a sentence that says so."""


@routes.post("/do/cancel/{key:path}", name="durably:cancel")
async def cancel(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Cancel a run."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        await run.cancel(by=person.name)
        return f"Run {key!r} is {run.state}." if run.state.final else f"Run {key!r} is to stop."

    return await _do(request, site, person, key, act)


@routes.post("/do/retry/{key:path}", name="durably:retry")
async def retry(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Let a run go on that ended without an output, or that waits for its agent or a budget."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        await run.retry(by=person.name)
        return f"Run {key!r} goes on; it is {run.state} now."

    return await _do(request, site, person, key, act)


@routes.post("/do/approve/{key:path}", name="durably:approve")
async def approve(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Let a call run, with the arguments that were shown, or with others."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        expected = _object("expected", form)
        args = _object("args", form)
        # As text, because to Python True, 1 and 1.0 are equal.
        same = json.dumps(args, sort_keys=True) == json.dumps(expected, sort_keys=True)
        edited = None if same else args
        call_id = form.get("call_id", "")
        await run.approve(
            call_id, args=edited, expected=expected, by=person.name, note=form.get("note", "")
        )
        how = " with other arguments" if edited is not None else ""
        return f"Call {call_id} is approved{how}."

    return await _do(request, site, person, key, act)


@routes.post("/do/deny/{key:path}", name="durably:deny")
async def deny(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Keep a call from running; the model reads the reason."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        call_id, reason = form.get("call_id", ""), form.get("reason", "").strip()
        given = {"reason": reason} if reason else {}
        await run.deny(call_id, by=person.name, **given)
        return f"Call {call_id} is denied."

    return await _do(request, site, person, key, act)


@routes.post("/do/answer/{key:path}", name="durably:answer")
async def answer(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Answer a question, or in the place of a call."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        call_id = form.get("call_id", "")
        effect = next((e for e in await run.effects() if e.call_id == call_id), None)
        value = _answer(effect, form)
        await run.answer(call_id, value, by=person.name, note=form.get("note", ""))
        return f"Call {call_id} is answered."

    return await _do(request, site, person, key, act)


@routes.post("/do/resolve/{key:path}", name="durably:resolve")
async def resolve(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Say what became of a call in doubt: exactly one of ``done``, ``failed`` and ``again``."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        call_id = form.get("call_id", "")
        said: dict[str, Any] = {}
        if "done" in form:
            said["done"] = json_from("The result", form["done"])
        if "failed" in form:
            said["failed"] = form["failed"]
        if form.get("again"):
            said["again"] = True
        await run.resolve(call_id, by=person.name, note=form.get("note", ""), **said)
        return f"Call {call_id} is settled."

    return await _do(request, site, person, key, act)


@routes.post("/do/raise/{key:path}", name="durably:raise")
async def raise_budget(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Set limits of a run's own budget; what is left empty stays."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        counts = {
            name: _count(name, form[name])
            for name in ("requests", "tokens", "tool_calls")
            if form.get(name, "").strip()
        }
        usd = form.get("usd", "").strip() or None
        await run.raise_budget(**counts, usd=usd, by=person.name, note=form.get("note", ""))
        return f"The budget of run {key!r} is raised; it is {run.state} now."

    return await _do(request, site, person, key, act)


@routes.post("/do/signal/{key:path}", name="durably:signal")
async def signal(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Send a signal: ``name``, and ``value``, a payload as JSON."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        name = form.get("name", "").strip()
        text = form.get("value", "").strip()
        payload = json_from("The payload", text) if text else None
        await site.app.signal(key, name, payload, by=person.name)
        return f"The signal {name!r} is sent."

    return await _do(request, site, person, key, act)


async def _do(request: Request, site: SiteOf, person: Person, key: str, act: Act) -> Response:
    """Act, and say how it went: in the page's own place for that, or on the page come back to.

    What is refused is said in the same place; without a script it is a page of its own.
    """
    form = _texts(await request.form())
    if not request.headers.get("hx-request"):
        run = await site.app.get(key)
        await act(run, form, person)
        back = form.get("next") or path_of(request, "durably:run", key=key)
        return RedirectResponse(same_site(request, back), 303)
    try:
        run = await site.app.get(key)
        said = await act(run, form, person)
    except Exception as error:
        found = wrong(error)
        if found is None:
            raise
        return page(
            request, "parts/said.html", status=found.status, text=found.detail, refused=True
        )
    answered = page(request, "parts/said.html", text=said, refused=False)
    answered.headers["HX-Trigger"] = "durably:changed"
    return answered


def _texts(form: FormData) -> dict[str, str]:
    """The fields that are texts; the last of those with the same name."""
    return {name: value for name, value in form.multi_items() if isinstance(value, str)}


def _answer(effect: Effect | None, form: Form) -> Any:
    """What was answered: a form's fields, a choice, text in answer to a question, or JSON.

    Raises:
        ConfigError: it is not what was asked for.
    """
    request = fields_of(effect.request) if effect else {}
    schema = request.get("form")
    text = form.get("value", "")
    if "value" not in form and fields_from(schema):
        return value_from(schema, form)
    if effect is not None and effect.ask == "question":
        if items_of(request.get("choices")):
            return parsed(text)
        if schema is None:
            return text.replace("\r\n", "\n")
        return json_from("The answer", text)
    return parsed(text)


def _object(name: str, form: Form) -> dict[str, Any] | None:
    """A JSON object; None where nothing was given.

    Raises:
        ConfigError: it is none.
    """
    text = form.get(name, "").strip()
    if not text:
        return None
    value = json_from("What was typed", text)
    if not is_object(value):
        raise ConfigError(f"The arguments are an object, such as {json.dumps({'name': 'value'})}.")
    return fields_of(value)


def _count(name: str, text: str) -> int:
    if not text.strip().isascii() or not text.strip().isdecimal():
        raise ConfigError(f"{name.replace('_', ' ')}: {text!r} is no whole number from 0.")
    return int(text.strip()[:20])
