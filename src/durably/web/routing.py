"""How every route of the site is called: with a bounded body, and with its errors answered.

Owns that for pages and for programs; the routes themselves are in `pages` and `rest`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Message, Receive

from durably.web.errors import Refusal, Wrong, problem, wrong
from durably.web.forged import content_type
from durably.web.site import base_path, found_site

MAX_BODY_BYTES = 4 * 1024 * 1024

type Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Instead(Exception):
    """Raised by a dependency that answers a request in the place of its route."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class SiteRoute(APIRoute):
    """A route whose errors are answered here, also inside an application with handlers of its own.

    An error that is none of ours is left to that application.
    """

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                self.check(request)
                response = await handle(Request(request.scope, _bounded(request)))
            except Instead as instead:
                response = instead.response
            except Exception as error:
                found = wrong(error)
                if found is None:
                    raise
                response = self.answer(request, found)
            if site := found_site(request):
                site.access.finish(request, response, base_path(request))
            return response

        return handled

    def check(self, request: Request) -> None:
        """Refuse what cannot even be read.

        Raises:
            Refusal: of the request.
        """

    def answer(self, request: Request, found: Wrong) -> Response:
        """How an error is shown."""
        raise NotImplementedError


class RestRoute(SiteRoute):
    """A route for programs: they send JSON, and its errors are problem details."""

    def check(self, request: Request) -> None:
        empty = request.headers.get("content-length", "0") == "0"
        if empty and "transfer-encoding" not in request.headers:
            return
        if content_type(request) != "application/json":
            raise Refusal(415, "Send JSON, and say so: Content-Type: application/json.")

    def answer(self, request: Request, found: Wrong) -> Response:
        if found.status == 401:
            found = found._replace(headers={"WWW-Authenticate": "Bearer"} | (found.headers or {}))
        return problem(found)


def _bounded(request: Request) -> Receive:
    """What a request sends, as long as it is not too much.

    Raises:
        Refusal: 413.
    """
    announced = request.headers.get("content-length", "")
    too_large = Refusal(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
    received = 0

    async def receive() -> Message:
        nonlocal received
        if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
            raise too_large
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise too_large
        return message

    return receive
