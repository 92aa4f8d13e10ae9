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
    """Answers 405 where another method has a route, else 404.

    Args:
        routes: all that there are.
        greedy: those of them whose last part takes whatever follows: what is there for others is
            not theirs.
    """

    def __init__(self, routes: Sequence[BaseRoute], greedy: Sequence[BaseRoute]) -> None:
        self._routes = [*routes]
        self._greedy = [*greedy]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = f"/api/{scope['path_params']['rest']}"
        found = {method for method in METHODS if _match(self._routes, path, method)}
        taken = {method for method in METHODS if _match(self._greedy, path, method)}
        allowed = ", ".join(sorted(found - taken or found))
        if allowed:
            said = f"{path} takes {allowed}, not {scope['method']}."
            answer = problem(Wrong(405, "Method Not Allowed", said, headers={"Allow": allowed}))
        else:
            answer = problem(Wrong(404, "Not Found", f"There is nothing at {path}."))
        await answer(scope, receive, send)


def _match(routes: Sequence[BaseRoute], path: str, method: str) -> bool:
    asked: Scope = {"type": "http", "path": path, "root_path": "", "method": method}
    return any(route.matches(dict(asked))[0] is Match.FULL for route in routes)
