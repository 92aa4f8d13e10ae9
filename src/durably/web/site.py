"""What every route needs: the application, who may do what, what is hidden, how pages are made.

Owns how a route finds it in a request; the routes themselves are in `rest` and `pages`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

from fastapi import Depends, Request

from durably.web.access import Access, Person
from durably.web.errors import Refusal

if TYPE_CHECKING:
    from durably.app import Durably

type Redact = Callable[[str, Any], Any]
"""Masks what is shown: called with what it is (``args``, ``result``, ``prompt``, ``text``,
``output``, ``error``, ``payload``) and the JSON value; returns the value to show instead."""


def nothing_hidden(what: str, value: Any) -> Any:
    """The default `Redact`: shows everything."""
    return value


@dataclass(frozen=True, slots=True)
class Site:
    """One dashboard and REST API of one application.

    Attributes:
        app: the application; opened by whoever serves the site.
        access: who somebody is, and what they may do.
        redact: masks arguments, results and messages wherever they are shown.
        title: above every page.
    """

    app: Durably
    access: Access
    redact: Redact = nothing_hidden
    title: str = "durably"

    @property
    def hides(self) -> bool:
        """True if anything may be masked: what is not whole yet cannot be."""
        return self.redact is not nothing_hidden


def attach(site: Site) -> Callable[[Request], Any]:
    """The dependency by which a route finds the site; nobody is known yet."""

    async def attached(request: Request) -> None:
        request.state.durably_site = site
        request.state.durably_person = None

    return attached


def identify(site: Site) -> Callable[..., Any]:
    """The dependency by which a route finds out who asks."""

    who = Depends(site.access.who)

    async def identified(request: Request, person: Person | None = who) -> None:
        if person is not None and not isinstance(person, Person):  # pyright: ignore[reportUnnecessaryIsInstance]
            kind = type(person).__name__
            raise TypeError(f"The dependency of Access.by returned {kind}, no durably.web.Person.")
        request.state.durably_person = person

    return identified


def site_of(request: Request) -> Site:
    """The site that a request is for (set by `attach`)."""
    return cast("Site", request.state.durably_site)


def found_site(request: Request) -> Site | None:
    """The same, where the request may have ended before anything was attached to it."""
    return getattr(request.state, "durably_site", None)


def base_path(request: Request) -> str:
    """Below which path the site is, as a browser sees it; ends with ``/``."""
    return request.url_for("durably:overview").path


async def viewer(request: Request) -> Person:
    """Who asks; a dependency of every route that shows something.

    Raises:
        Refusal: 401 for somebody unknown.
    """
    person: Person | None = request.state.durably_person
    if person is None:
        raise Refusal(401, "Log in first.")
    return person


async def operator(request: Request, person: Annotated[Person, Depends(viewer)]) -> Person:
    """Who asks, and may change something; a dependency of every route that does.

    Raises:
        Refusal: 401 for somebody unknown, 403 for a viewer or a forged request.
    """
    if not person.may_act:
        raise Refusal(403, f"{person.name} may look, but not change anything.")
    await site_of(request).access.check_unforged(request)
    return person


type SiteOf = Annotated[Site, Depends(site_of)]
type Viewer = Annotated[Person, Depends(viewer)]
type Operator = Annotated[Person, Depends(operator)]
