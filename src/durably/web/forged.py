"""Requests that another site makes somebody's browser send, told from their own.

Owns the check of where a request comes from and the token of forms; who somebody is, is `access`'s.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import urlsplit

from fastapi import Request, Response

from durably.web.errors import Refusal

COOKIE = "durably_form"
FIELD = "form_token"
HEADER = "x-form-token"

FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a page of another site can make a browser send without asking us first."""


async def check(request: Request, token: str) -> None:
    """Refuse a request of another site: by what the browser says, and for a form by its token.

    Raises:
        Refusal: 403.
    """
    if by_bearer(request):
        return  # No browser adds this header by itself.
    check_origin(request)
    given = request.headers.get(HEADER)
    if given is None and content_type(request) not in FORMS:
        return  # JSON, or nothing at all: a browser asks before it sends JSON to another site.
    if given is None:
        given = str((await request.form()).get(FIELD, ""))
    if not hmac.compare_digest(given.encode(), token.encode()):
        raise Refusal(403, "This form is from before, or from elsewhere: load the page again.")


def by_bearer(request: Request) -> bool:
    """True for a request that says who sends it in the header that only programs write."""
    return request.headers.get("authorization", "").lower().startswith("bearer ")


def content_type(request: Request) -> str:
    """The media type of the body, without its parameters; empty without one."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_origin(request: Request) -> None:
    """Refuse what a browser says comes from another site; programs say nothing about it.

    Raises:
        Refusal: 403.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Refusal(403, "This request comes from another site.")
        return
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise Refusal(403, "This request comes from another site.")


# --- the form token where nobody logs in here: a function of a cookie of ours. Another site knows
# neither; one that can plant a cookie is still another origin.


def token_of_cookie(request: Request) -> str:
    """The token that goes with the browser's cookie, which is made if there is none."""
    return hmac.new(_cookie(request).encode(), b"durably form", "sha256").hexdigest()


def keep_cookie(request: Request, response: Response, path: str) -> None:
    """Give the browser the cookie that was made for it."""
    made: str | None = getattr(request.state, "durably_form_cookie", None)
    if made is not None:
        set_cookie(request, response, COOKIE, made, path)


def set_cookie(
    request: Request,
    response: Response,
    name: str,
    value: str,
    path: str,
    seconds: int | None = None,
) -> None:
    """A cookie that no script reads, and that other sites' pages don't send."""
    response.set_cookie(
        name,
        value,
        max_age=seconds,
        path=path,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def _cookie(request: Request) -> str:
    sent = request.cookies.get(COOKIE)
    if sent:
        return sent
    made: str | None = getattr(request.state, "durably_form_cookie", None)
    if made is None:
        made = request.state.durably_form_cookie = secrets.token_urlsafe(24)
    return made
