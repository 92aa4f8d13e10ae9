"""Who may see and do what: roles, and the ways to find out who somebody is.

Owns what every way has in common; the login by token is in `tokens`, forged requests in `forged`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import Request, Response

from durably.web import forged


class Role(StrEnum):
    """What somebody may do: look, or also decide, cancel, pause."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is known; the name goes into the audit trail."""

    name: str
    role: Role = Role.OPERATOR

    @property
    def may_act(self) -> bool:
        return self.role is Role.OPERATOR


type Who = Callable[..., Person | None] | Callable[..., Awaitable[Person | None]]
"""A FastAPI dependency that says who sends a request: None, or an HTTPException, for nobody."""


class Access(ABC):
    """Finds out who somebody is: `TokenAccess`, `OpenAccess`, or `Access.by` of one's own.

    Attributes:
        login: True where there is a page to log in at.
    """

    login: bool = False

    @staticmethod
    def by(dependency: Who, *, login_url: str | None = None) -> Access:
        """The application's own way: a FastAPI dependency, with dependencies of its own.

        It returns a `Person`, or None or an HTTPException for somebody unknown.

        Args:
            login_url: where browsers of unknown people are sent, with ``?next=`` the page that
                they asked for; default: they read that they have to log in.
        """
        return ApplicationAccess(dependency, login_url)

    @property
    @abstractmethod
    def who(self) -> Who:
        """The dependency that says who sends a request."""
        ...

    def login_url(self, request: Request) -> str | None:
        """Where somebody unknown logs in; None: nowhere that is known here."""
        return None

    async def check_unforged(self, request: Request) -> None:
        """Refuse a request that another site made somebody's browser send.

        Raises:
            Refusal: 403.
        """
        await forged.check(request, self.form_token(request))

    def form_token(self, request: Request) -> str:
        """What forms carry (field ``form_token``, header ``X-Form-Token``) to be told from forged
        ones."""
        return forged.token_of_cookie(request)

    def finish(self, request: Request, response: Response, path: str) -> None:
        """Add what an answer has to carry, such as the cookie of the form token.

        Args:
            path: below which the site is.
        """
        forged.keep_cookie(request, response, path)


@dataclass(frozen=True, slots=True)
class OpenAccess(Access):
    """Everybody is the operator; for a dashboard that only this machine reaches."""

    person: Person = Person("operator")

    @property
    def who(self) -> Who:
        def known() -> Person:
            return self.person

        return known


@dataclass(frozen=True, slots=True)
class ApplicationAccess(Access):
    """The application says who somebody is; see `Access.by`."""

    dependency: Any
    to_login: str | None = None

    @property
    def who(self) -> Who:
        return self.dependency

    def login_url(self, request: Request) -> str | None:
        return self.to_login
