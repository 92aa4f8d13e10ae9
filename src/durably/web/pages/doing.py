"""What people do about runs and their calls: the posts of forms, each by whoever is logged in.

Owns how a form is read and what is said afterwards; what may be done is the API's to say.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData
from starlette.responses import RedirectResponse, Response

from durably.errors import ConfigError
from durably.records import Effect
from durably.run import Run
from durably.web.access import Person
from durably.web.errors import wrong
from durably.web.pages.deciding import form_again
from durably.web.pages.rendering import page, path_of
from durably.web.pages.routing import page_routes, same_site
from durably.web.site import Operator, SiteOf
from durably.web.views.asked import ARGS
from durably.web.views.filled import FormErrors, value_from_form
from durably.web.views.values import fields_of, is_object, items_of, parsed

routes = page_routes()

type Form = Mapping[str, Any]
"""Names to texts; to a list of texts where a name comes more than once."""

type Act = Callable[[Run[Any], Form, Person], Awaitable[str]]
"""Does what a form says and returns a sentence that says so."""


@routes.post("/do/cancel/{key:any}", name="durably:cancel")
async def cancel(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Cancel a run."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        await run.cancel(by=person.name)
        return f"Run {key!r} is {run.state}." if run.state.final else f"Run {key!r} is to stop."

    return await _do(request, site, person, key, act)


@routes.post("/do/retry/{key:any}", name="durably:retry")
async def retry(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Let a run go on that ended without an output, or that waits for its agent or a budget."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        await run.retry(by=person.name)
        return f"Run {key!r} goes on; it is {run.state} now."

    return await _do(request, site, person, key, act)


@routes.post("/do/approve/{key:any}", name="durably:approve")
async def approve(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Let a call run, with the arguments that were shown, or with others."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        call_id = _text(form, "call_id")
        expected, args = _object("expected", form), await _args(run, call_id, form)
        # As text, because to Python True, 1 and 1.0 are equal.
        same = json.dumps(args, sort_keys=True) == json.dumps(expected, sort_keys=True)
        edited = None if same else args
        await run.approve(
            call_id, args=edited, expected=expected, by=person.name, note=_text(form, "note")
        )
        how = " with other arguments" if edited is not None else ""
        return f"Call {call_id} is approved{how}."

    return await _do(request, site, person, key, act)


@routes.post("/do/deny/{key:any}", name="durably:deny")
async def deny(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Keep a call from running; the model reads the reason."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        call_id, reason = _text(form, "call_id"), _text(form, "reason").strip()
        given = {"reason": reason} if reason else {}
        await run.deny(call_id, by=person.name, **given)
        return f"Call {call_id} is denied."

    return await _do(request, site, person, key, act)


@routes.post("/do/answer/{key:any}", name="durably:answer")
async def answer(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Answer a question, or in the place of a call."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        call_id = _text(form, "call_id")
        value = _answer(await _effect(run, call_id), form)
        await run.answer(call_id, value, by=person.name, note=_text(form, "note"))
        return f"Call {call_id} is answered."

    return await _do(request, site, person, key, act)


@routes.post("/do/resolve/{key:any}", name="durably:resolve")
async def resolve(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Say what became of a call in doubt: exactly one of ``done``, ``failed`` and ``again``."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        call_id = _text(form, "call_id")
        said: dict[str, Any] = {}
        if "done" in form:
            said["done"] = _json("The result", _text(form, "done"))
        if "failed" in form:
            said["failed"] = _text(form, "failed")
        if form.get("again"):
            said["again"] = True
        await run.resolve(call_id, by=person.name, note=_text(form, "note"), **said)
        return f"Call {call_id} is settled."

    return await _do(request, site, person, key, act)


@routes.post("/do/raise/{key:any}", name="durably:raise")
async def raise_budget(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Set limits of a run's own budget; what is left empty stays."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        await run.raise_budget(**_limits(form), by=person.name, note=_text(form, "note"))
        return f"The budget of run {key!r} is raised; it is {run.state} now."

    return await _do(request, site, person, key, act)


@routes.post("/do/share/{key:any}", name="durably:share")
async def raise_shared(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Set limits of a budget that the run shares: ``scope``, ``name``; what is left empty stays."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        scope, name, limits = _text(form, "scope"), _text(form, "name"), _limits(form)
        shared = [b for b in await site.app.budgets() if (b.scope, b.name) == (scope, name)]
        if not shared:
            raise ConfigError(f"There is no budget of {scope} {name!r} any more.")
        if not limits:
            raise ConfigError("Give at least one new limit.")
        raised = replace(shared[0].limits, **limits)
        await site.app.set_budget(raised, **{scope: name}, by=person.name)
        await run.refresh()
        return f"The budget of {scope} {name!r} is raised; run {key!r} is {run.state} now."

    return await _do(request, site, person, key, act)


@routes.post("/do/signal/{key:any}", name="durably:signal")
async def signal(request: Request, key: str, site: SiteOf, person: Operator) -> Response:
    """Send a signal: ``name``, and ``value``, a payload as JSON."""

    async def act(run: Run[Any], form: Form, person: Person) -> str:
        name = _text(form, "name").strip()
        text = _text(form, "value").strip()
        payload = _json("The payload", text) if text else None
        await site.app.signal(key, name, payload, by=person.name)
        return f"The signal {name!r} is sent."

    return await _do(request, site, person, key, act)


async def _do(request: Request, site: SiteOf, person: Person, key: str, act: Act) -> Response:
    """Act, and say how it went: in the page's own place for that, or on the page come back to.

    What is refused is said in the same place; without a script it is a page of its own.
    """
    form = _texts(await request.form())
    if not request.headers.get("hx-request"):
        back = _text(form, "next") or path_of(request, "durably:run", key=key)
        run = await site.app.get(key)
        await act(run, form, person)
        return RedirectResponse(same_site(request, back), 303)
    try:
        run = await site.app.get(key)
        try:
            said = await act(run, form, person)
        except _Unread as error:
            if "how" not in form:
                raise
            return await form_again(request, run, form, error.errors)
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


def _texts(form: FormData) -> Form:
    found: dict[str, Any] = {}
    for name in form:
        texts = [value for value in form.getlist(name) if isinstance(value, str)]
        found[name] = texts[0] if len(texts) == 1 else texts
    return found


def _text(form: Form, name: str) -> str:
    """What a field says; nothing if it is not there.

    Raises:
        ConfigError: it comes more than once, or is a file.
    """
    text = form.get(name, "")
    if not isinstance(text, str):
        raise ConfigError(f"Give {name!r} once, as text.")
    return text


def _limits(form: Form) -> dict[str, Any]:
    """The limits of a budget that were filled in."""
    limits: dict[str, Any] = {
        name: _count(name, text)
        for name in ("requests", "tokens", "tool_calls")
        if (text := _text(form, name)).strip()
    }
    usd = _text(form, "usd").strip()
    return limits | ({"usd": usd} if usd else {})


async def _effect(run: Run[Any], call_id: str) -> Effect | None:
    return next((e for e in await run.effects() if e.call_id == call_id), None)


async def _args(run: Run[Any], call_id: str, form: Form) -> dict[str, Any] | None:
    """The arguments as they were edited, in fields or as JSON; None where none were given.

    Raises:
        ConfigError: they cannot be read.
    """
    if form.get("how") != "edit" and not _has_fields(form, ARGS):
        return _object(ARGS, form)
    effect = await _effect(run, call_id)
    schema = fields_of(effect.request).get("schema") if effect else None
    return _from_fields(schema or {}, form, ARGS)


def _answer(effect: Effect | None, form: Form) -> Any:
    """What was answered: in fields of a form, a choice, text in answer to a question, or JSON.

    Raises:
        ConfigError: it cannot be read.
    """
    request = fields_of(effect.request) if effect else {}
    in_dialog = form.get("how") == "answer" and "form" in request
    if in_dialog or _has_fields(form, "value"):
        return _from_fields(request.get("form") or {}, form, "value")
    text = _text(form, "value")
    asks_text = effect is not None and effect.ask == "question" and "form" not in request
    if text in items_of(request.get("choices")):
        return text
    if asks_text and "choices" not in request:
        return text.replace("\r\n", "\n")
    return parsed(text)


def _has_fields(form: Form, prefix: str) -> bool:
    return any(name.startswith((f"{prefix}/", f"json:{prefix}")) for name in form)


def _from_fields(schema: Any, form: Form, prefix: str) -> Any:
    try:
        return value_from_form(schema, form, prefix)
    except FormErrors as error:
        raise _Unread(error.errors) from error


class _Unread(ConfigError):
    """The fields of a form are no value of its schema."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = errors


def _json(what: str, text: str) -> Any:
    """The JSON that somebody typed.

    Raises:
        ConfigError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f'{what} is not JSON: {error}. Text stands in quotes: "done".') from error


def _object(name: str, form: Form) -> dict[str, Any] | None:
    """A JSON object; None where nothing was given.

    Raises:
        ConfigError: it is none.
    """
    text = _text(form, name).strip()
    if not text:
        return None
    value = _json("What was typed", text)
    if not is_object(value):
        raise ConfigError(f"The arguments are an object, such as {json.dumps({'name': 'value'})}.")
    return fields_of(value)


def _count(name: str, text: str) -> int:
    if not text.strip().isascii() or not text.strip().isdecimal():
        raise ConfigError(f"{name.replace('_', ' ')}: {text!r} is no whole number from 0.")
    return int(text.strip()[:20])
