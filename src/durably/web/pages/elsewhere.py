"""The page where there is no other."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import Response

from durably.web.errors import Refusal
from durably.web.pages.routing import page_routes
from durably.web.site import Viewer

routes = page_routes()


@routes.get("/{rest:path}")
async def elsewhere(request: Request, _: Viewer) -> Response:
    """Say so."""
    raise Refusal(404, f"There is nothing at {request.url.path}.")
