"""The dashboard's pages; each has its own module with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from durably.web.pages import overview, static


def add_to(routes: APIRouter) -> None:
    """Add every page."""
    for page in (static, overview):
        routes.include_router(page.routes)
