"""Only the names by which this machine knows itself: a stranger's name may be bent to point here.

Owns the check of the header ``Host``, around an application that only this machine shall reach.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from durably.web.errors import Wrong, problem


class OnlyHosts:
    """Refuses requests that were sent to another name, whatever address that led to."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._name(scope) not in self._hosts:
            said = "This server is known by another name here; --allow-host adds one."
            await problem(Wrong(421, "Misdirected Request", said))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    @staticmethod
    def _name(scope: Scope) -> str | None:
        sent = [value for name, value in scope["headers"] if name == b"host"]
        try:
            return urlsplit(f"//{sent[0].decode('latin-1')}").hostname if len(sent) == 1 else None
        except ValueError:
            return None
