"""The few files that pages load: styles, htmx, our own script. All from here, none from outside."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from durably.web.errors import Refusal
from durably.web.routing import RestRoute

FOLDER = Path(__file__).parent.parent / "static"

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

routes = APIRouter(include_in_schema=False, route_class=RestRoute)


@routes.get("/static/{name}", name="durably:static")
def static(name: str) -> FileResponse:
    """A file by its name; kept by browsers, since its address changes with its content."""
    path = FOLDER / name
    if name not in {file.name for file in FOLDER.iterdir()}:
        raise Refusal(404, f"There is no file {name!r}.")
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return FileResponse(path, media_type=TYPES.get(path.suffix), headers=headers)


@cache
def static_path(name: str) -> str:
    """The query that changes with a file's content."""
    return "?" + hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()[:12]
