"""Puts the parts together: a router for an application of one's own, or an application.

Owns the order of the parts; what they answer is theirs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from durably import __version__
from durably.web import pages, protocols, rest
from durably.web.access import Access
from durably.web.errors import Wrong, problem, wrong
from durably.web.pages import elsewhere
from durably.web.pages.rendering import page
from durably.web.pages.routing import enter_by_link
from durably.web.site import Redact, Site, attach, found_site, identify, nothing_hidden
from durably.web.stopping import hearing_of_stop
from durably.web.tokens import TokenAccess

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

    ``api.include_router(durably.web.router(app), prefix="/durably")``, with `lifespan`. Two of them
    in one FastAPI application would have the same names: mount the second, made by `create_app`.

    Args:
        access: who may see and do what; default: `TokenAccess.from_environment`.
        redact: masks what is shown.
        title: above every page.
    """
    return _routes(Site(app, access or TokenAccess.from_environment(), redact, title))


def _routes(site: Site, *, alone: bool = False) -> APIRouter:
    """All routes; if the site is alone on its server, also the page where there is no other."""
    routes = APIRouter(dependencies=[Depends(attach(site))])
    pages.add_open(routes)
    rest.add_open(routes)
    known = [Depends(identify(site))]
    for_people = APIRouter(dependencies=[Depends(enter_by_link), *known])
    pages.add_to(for_people)
    for_programs = APIRouter(dependencies=known)
    for_programs.include_router(protocols.routes)
    rest.add_to(for_programs)
    routes.include_router(for_people)
    routes.include_router(for_programs)
    rest.add_last(routes)
    if alone:
        routes.include_router(elsewhere.routes, dependencies=known)
    return routes


def lifespan(app: Durably) -> Callable[[FastAPI], Any]:
    """Opens the application's ledger while the server runs: ``FastAPI(lifespan=lifespan(app))``.

    Streams end when the process is told to stop; without it a server waits for them.
    """

    @asynccontextmanager
    async def opened(_: FastAPI) -> AsyncGenerator[None]:
        async with app:
            with hearing_of_stop(app):
                yield

    return opened


def create_app(
    app: Durably,
    *,
    access: Access | None = None,
    redact: Redact = nothing_hidden,
    title: str = "durably",
) -> FastAPI:
    """A server's application with `router` at its root; the arguments are the same."""
    api = FastAPI(
        title="durably",
        version=__version__,
        lifespan=lifespan(app),
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    site = Site(app, access or TokenAccess.from_environment(), redact, title)
    api.include_router(_routes(site, alone=True))
    api.add_exception_handler(HTTPException, _refused)
    api.add_exception_handler(Exception, _failed)
    return api


async def _refused(_: Request, error: Exception) -> Response:
    """What no route answers: an address that there is not."""
    found = wrong(error)
    assert found is not None
    return problem(found)


async def _failed(request: Request, error: Exception) -> Response:
    """A bug; what it was is in the log."""
    found = Wrong(500, "Internal Server Error", "This failed unexpectedly; see the log.")
    for_people = "text/html" in request.headers.get("accept", "")
    if for_people and found_site(request) is not None:
        return page(request, "error.html", status=found.status, wrong=found)
    return problem(found)
