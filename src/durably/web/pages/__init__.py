"""The dashboard's pages; each has its own module with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from durably.web.pages import audit, inbox, overview, run, runs, static, workers


def add_to(routes: APIRouter) -> None:
    """Add every page."""
    for page in (static, overview, runs, run, inbox, workers, audit):
        routes.include_router(page.routes)
