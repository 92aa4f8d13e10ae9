"""How a page is made: a template, what every page shows, and the headers that keep it harmless.

Owns the security policy of pages; what is on them is theirs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from durably.web.pages.static import static_path
from durably.web.site import site_of
from durably.web.tokens import TokenAccess
from durably.web.views import filters
from durably.web.views.text import visible

FOLDER = Path(__file__).parent.parent / "templates"

# No script, style, frame or request but the site's own; nothing inline.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def harmless(value: Any) -> Any:
    """What is printed into a page: text without characters that are obeyed and not seen.

    What was made for a page already is left as it is.
    """
    return visible(value) if type(value) is str else value


templates = Environment(
    loader=FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=harmless,
)
templates.filters.update(filters.FILTERS)  # type: ignore[reportUnknownMemberType]

THEMES = ("light", "dark")
"""What the cookie ``durably_theme`` may say; without it, the page is as the reader's system is."""


def page(request: Request, template: str, /, *, status: int = 200, **shown: Any) -> HTMLResponse:
    """A page, or a part of one, from a template.

    Every template has ``site``, ``person`` (None for somebody unknown), ``form_token``, ``here``
    (this path), ``theme``, ``may_log_out``, ``url(name, **params)``, the path of a route, and
    ``static(name)``, that of a file.
    """
    return HTMLResponse(fragment(request, template, **shown), status, HEADERS)


def fragment(request: Request, template: str, /, **shown: Any) -> str:
    """What `page` answers, as text."""
    site = site_of(request)
    access = site.access
    chosen = request.cookies.get("durably_theme")

    url = _Paths(request)

    def static(name: str, /) -> str:
        return url("durably:static", name=name) + static_path(name)

    return templates.get_template(template).render(
        site=site,
        person=request.state.durably_person,
        form_token=access.form_token(request),
        here=request.url.path,
        theme=chosen if chosen in THEMES else None,
        may_log_out=isinstance(access, TokenAccess) and access.cookie in request.cookies,
        url=url,
        static=static,
        **shown,
    )


class _Paths:
    """The paths of one page: each route is looked up once, however often it is linked to."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._known: dict[tuple[str, ...], str] = {}

    def __call__(self, name: str, /, **params: Any) -> str:
        route = (name, *params)
        path = self._known.get(route)
        if path is None:
            places = {param: f"~~{param}~~" for param in params}
            path = self._known[route] = path_of(self._request, name, **places)
        # In one go: what a parameter holds is no place for another.
        return _PLACE.sub(lambda place: _quoted(str(params[place[1]])), path)


_PLACE = re.compile(r"~~(\w+)~~")


def path_of(request: Request, name: str, /, **params: Any) -> str:
    """The path of a route, wherever the site is mounted; ``params`` may be any text."""
    quoted = {param: _quoted(str(value)) for param, value in params.items()}
    return request.url_for(name, **quoted).path


def _quoted(value: str) -> str:
    # Browsers and proxies resolve "..", and some make one slash of two.
    plain = all(segment not in ("", ".", "..") for segment in value.split("/"))
    return quote(value, safe="/" if plain else "", errors="replace")
