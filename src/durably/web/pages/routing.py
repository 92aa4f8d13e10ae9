"""How every page is called: its errors are pages too, and somebody unknown is sent to log in.

Owns that, and the link that logs in; pages have their routes from `page_routes`.
"""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, RedirectResponse
from starlette.responses import Response

from durably.web import keys as keys  # Makes `{key:any}` known.
from durably.web.errors import Wrong
from durably.web.pages.rendering import page
from durably.web.routing import Instead, SiteRoute
from durably.web.site import base_path, found_site, site_of
from durably.web.tokens import TokenAccess


class PageRoute(SiteRoute):
    """A route for people with browsers."""

    def answer(self, request: Request, found: Wrong) -> Response:
        site = found_site(request)
        if site is None:  # It could not even be read.
            return PlainTextResponse(found.detail, found.status, found.headers)
        login = site.access.login_url(request) if found.status == 401 else None
        if login is not None:
            return _sent_to(request, login)
        if request.headers.get("hx-request") and request.method == "POST":
            # Said where what is done is said, not a page within the page.
            said = {"text": found.detail, "refused": True}
            shown = page(request, "parts/said.html", status=found.status, **said)
            shown.headers.update({"HX-Retarget": "#said", "HX-Reswap": "beforeend"})
            return shown
        shown = page(request, "error.html", status=found.status, wrong=found)
        shown.headers.update(found.headers or {})
        return shown


def page_routes() -> APIRouter:
    """For the routes of a page, or of a part or a form of one."""
    return APIRouter(include_in_schema=False, route_class=PageRoute)


async def enter_by_link(request: Request) -> None:
    """A dependency of every page: with ``?token=`` in its address it logs in, and drops the token.

    Raises:
        Instead: of the page: the same one, without the token.
    """
    access = site_of(request).access
    token = request.query_params.get("token")
    if token is None or not isinstance(access, TokenAccess) or request.method != "GET":
        return
    rest = [pair for pair in request.query_params.multi_items() if pair[0] != "token"]
    path = request.url.path + (f"?{urlencode(rest)}" if rest else "")
    role = access.role_of(token, request)
    if role is None:
        raise Instead(_sent_to(request, access.login_url(request) or "", path))
    answer = RedirectResponse(same_site(request, path), 303, {"Referrer-Policy": "no-referrer"})
    access.begin(request, answer, role, "", base_path(request))
    raise Instead(answer)


def same_site(request: Request, address: str) -> str:
    """An address of this site; its first page in the place of any other."""
    base = base_path(request)
    plain = address.isprintable() and "\\" not in address and not address.startswith("//")
    return address if plain and address.startswith(base) else base


def _sent_to(request: Request, login: str, path: str | None = None) -> Response:
    """To the page to log in at, and from there back."""
    if request.headers.get("hx-request"):
        # htmx would put the page that logs in where a part of a page belongs.
        return Response(status_code=401, headers={"HX-Redirect": login})
    if path is None:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method != "GET":
        path = base_path(request)
    # Ours leads to the first page anyway.
    back = "" if site_of(request).access.login and path == base_path(request) else path
    query = f"?{urlencode({'next': back})}" if back else ""
    return RedirectResponse(login + query, 303, {"Cache-Control": "no-store"})
