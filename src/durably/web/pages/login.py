"""The page to log in at with a token, and the end of a session.

Owns the form; which token is right, and how often somebody may try, is `tokens`'.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from durably.web import forged
from durably.web.errors import Refusal, Wrong
from durably.web.pages.rendering import page
from durably.web.pages.routing import page_routes, same_site
from durably.web.site import SiteOf, base_path
from durably.web.tokens import TokenAccess

MAX_TOKEN_CHARS = 1000

routes = page_routes()


@routes.get("/login", name="durably:login")
async def login_page(request: Request, site: SiteOf, next: str = "") -> Response:
    """The form."""
    if not isinstance(site.access, TokenAccess):
        raise Refusal(404, "Nobody logs in here.")
    return page(request, "login.html", next=next, wrong=None)


@routes.post("/login")
async def log_in(
    request: Request,
    site: SiteOf,
    token: Annotated[str, Form(max_length=MAX_TOKEN_CHARS)] = "",
    name: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=4000)] = "",
) -> Response:
    """Begin a session with the right token, and go where it was asked for."""
    access = site.access
    if not isinstance(access, TokenAccess):
        raise Refusal(404, "Nobody logs in here.")
    forged.check_origin(request)
    try:
        role = access.role_of(token.strip(), request)
    except Refusal as refusal:
        said = Wrong(refusal.status_code, "", refusal.detail, headers=dict(refusal.headers or {}))
    else:
        if role is not None:
            answer = RedirectResponse(same_site(request, next), 303)
            access.begin(request, answer, role, name, base_path(request))
            return answer
        said = Wrong(403, "", "This is not the token.")
    shown = page(request, "login.html", status=said.status, next=next, wrong=said)
    shown.headers.update(said.headers or {})
    return shown


@routes.post("/logout", name="durably:logout")
async def log_out(request: Request, site: SiteOf) -> Response:
    """End the session."""
    access = site.access
    if not isinstance(access, TokenAccess):
        raise Refusal(404, "Nobody logs in here.")
    await access.check_unforged(request)
    answer = RedirectResponse(request.url_for("durably:login").path, 303)
    access.end(answer, base_path(request))
    return answer
