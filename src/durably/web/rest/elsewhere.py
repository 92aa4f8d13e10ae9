"""What is said below ``/api`` where there is no route, or none for the method.

Owns that it is a problem as any other, also inside an application with answers of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from durably.web.errors import Wrong, problem

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Elsewhere:
    """Answers 405 where another method has a route, else 404."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = [*routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = f"/api/{scope['path_params']['rest']}"
        allowed = [method for method in METHODS if self._has(path, method)]
        if allowed:
            said = f"{path} takes {', '.join(allowed)}, not {scope['method']}."
            answer = problem(
                Wrong(405, "Method Not Allowed", said, headers={"Allow": ", ".join(allowed)})
            )
        else:
            answer = problem(Wrong(404, "Not Found", f"There is nothing at {path}."))
        await answer(scope, receive, send)

    def _has(self, path: str, method: str) -> bool:
        asked: Scope = {"type": "http", "path": path, "root_path": "", "method": method}
        return any(route.matches(dict(asked))[0] is Match.FULL for route in self._routes)
