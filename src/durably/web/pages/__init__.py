"""The dashboard's pages; each has its own module with its routes."""

from __future__ import annotations

from fastapi import APIRouter

from durably.web.pages import (
    audit,
    bulk,
    deciding,
    doing,
    inbox,
    login,
    overview,
    queueing,
    run,
    run_live,
    run_values,
    runs,
    static,
    workers,
)


def add_open(routes: APIRouter) -> None:
    """Add what anybody may load."""
    for page in (static, login):
        routes.include_router(page.routes)


def add_to(routes: APIRouter) -> None:
    """Add every page that is for people who are known."""
    of_runs = (runs, bulk, run, run_live, run_values, doing, deciding)
    for page in (overview, *of_runs, inbox, workers, queueing, audit):
        routes.include_router(page.routes)
