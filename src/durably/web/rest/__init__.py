"""The REST API; each part of it has its own module with its routes."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.routing import Route

from durably.web.rest import (
    budgets,
    bulk,
    doing,
    health,
    history,
    metrics,
    overview,
    people,
    queues,
    runs,
    threads,
    timeline,
    watch,
)
from durably.web.rest.elsewhere import Elsewhere


def add_open(routes: APIRouter) -> None:
    """Add what anybody may ask."""
    routes.include_router(health.routes)


def add_to(routes: APIRouter) -> None:
    """Add what is for those who are known."""
    # A key may hold slashes: what comes behind it is looked for first.
    of_runs = (runs, history, timeline, watch, doing, bulk, people, threads)
    for part in (*of_runs, budgets, queues, overview, metrics):
        routes.include_router(part.routes)
    routes.include_router(runs.last_routes)


def add_last(routes: APIRouter) -> None:
    """Add the answer to what no route of the API is for."""
    routes.routes.append(
        Route("/api/{rest:path}", Elsewhere(routes.routes, runs.last_routes.routes))
    )
