"""Puts the parts together: a router for an application of one's own, or an application.

Owns the order of the parts; what they answer is theirs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request

from durably import __version__
from durably.web import pages
from durably.web.access import Access, TokenAccess
from durably.web.site import Redact, Site, nothing_hidden

if TYPE_CHECKING:
    from durably.app import Durably


def router(
    app: Durably,
    *,
    access: Access | None = None,
    redact: Redact = nothing_hidden,
    title: str = "durably",
) -> APIRouter:
    """The dashboard and the REST API of an application, to be included in one's own FastAPI app.

    ``api.include_router(durably.web.router(app), prefix="/durably")``, with `lifespan`.

    Args:
        access: who may see and do what; default: login with a random token.
        redact: masks what is shown.
        title: above every page.
    """
    site = Site(app, access or TokenAccess(), redact, title)
    routes = APIRouter(dependencies=[Depends(_attach(site))])
    pages.add_to(routes)
    return routes


def lifespan(app: Durably) -> Callable[[FastAPI], Any]:
    """Opens the application's ledger while the server runs: ``FastAPI(lifespan=lifespan(app))``."""

    @asynccontextmanager
    async def opened(_: FastAPI) -> AsyncGenerator[None]:
        async with app:
            yield

    return opened


def create_app(app: Durably, **options: Any) -> FastAPI:
    """A server's application with `router` at its root.

    Args:
        options: as for `router`.
    """
    api = FastAPI(title="durably", version=__version__, lifespan=lifespan(app), docs_url=None)
    api.include_router(router(app, **options))
    return api


def _attach(site: Site) -> Callable[[Request], Any]:
    async def attach(request: Request) -> None:
        request.state.durably_site = site
        request.state.durably_person = await site.access.who(request)

    return attach
