"""Who may see and do what: a login by token, the application's own way, or nobody to keep out.

Owns roles, the signed cookie of a session and the protection against forged requests.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fastapi import HTTPException, Request
from itsdangerous import BadSignature, URLSafeTimedSerializer

SESSION_COOKIE = "durably_session"
SESSION_SECONDS = 12 * 3600


class Role(StrEnum):
    """What somebody may do: look, or also decide, cancel, pause."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has logged in; the name goes into the audit trail."""

    name: str
    role: Role = Role.OPERATOR

    @property
    def may_act(self) -> bool:
        return self.role is Role.OPERATOR


class Access(Protocol):
    """Finds out who somebody is."""

    async def who(self, request: Request) -> Person | None:
        """Who sends a request; None for somebody unknown."""
        ...

    async def check_unforged(self, request: Request) -> None:
        """Refuse a request that another site made somebody's browser send.

        Raises:
            HTTPException: 403.
        """
        ...

    def form_token(self, request: Request) -> str:
        """What forms carry (field ``form_token``, header ``X-Form-Token``) to be told from forged
        ones."""
        ...


@dataclass(frozen=True, slots=True)
class OpenAccess:
    """Everybody is the operator; for a dashboard that only this machine reaches."""

    person: Person = Person("operator")

    async def who(self, request: Request) -> Person | None:
        return self.person

    async def check_unforged(self, request: Request) -> None:
        site = request.headers.get("sec-fetch-site", "same-origin")
        if site not in ("same-origin", "none"):
            raise HTTPException(403, "This request comes from another site.")

    def form_token(self, request: Request) -> str:
        return ""


class TokenAccess:
    """Login by a secret token: in a form, a link (``?token=``), or ``Authorization: Bearer``.

    Args:
        operator: the token of those who may act; a random one by default.
        viewer: the token of those who may look; None: there are none.
    """

    def __init__(self, operator: str | None = None, viewer: str | None = None) -> None:
        self.operator = operator or secrets.token_urlsafe(24)
        self.viewer = viewer
        self._signer = URLSafeTimedSerializer(self.operator, salt="durably-session")

    def role_of(self, token: str) -> Role | None:
        """The role that a token gives; None for a wrong one."""
        if hmac.compare_digest(token.encode(), self.operator.encode()):
            return Role.OPERATOR
        if self.viewer and hmac.compare_digest(token.encode(), self.viewer.encode()):
            return Role.VIEWER
        return None

    def session(self, person: Person) -> str:
        """The signed cookie of somebody who has logged in."""
        return self._signer.dumps([person.name, person.role, secrets.token_urlsafe(8)])

    async def who(self, request: Request) -> Person | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            role = self.role_of(token.strip())
            return Person(role.value, role) if role else None
        try:
            name, role, _ = self._signer.loads(
                request.cookies.get(SESSION_COOKIE, ""), max_age=SESSION_SECONDS
            )
        except BadSignature:
            return None
        return Person(name, Role(role))

    async def check_unforged(self, request: Request) -> None:
        if request.headers.get("authorization"):
            return  # No browser adds this header by itself.
        given = request.headers.get("x-form-token")
        if given is None:
            given = str((await request.form()).get("form_token", ""))
        if not hmac.compare_digest(given.encode(), self.form_token(request).encode()):
            raise HTTPException(403, "This form is not of this session: load the page again.")

    def form_token(self, request: Request) -> str:
        cookie = request.cookies.get(SESSION_COOKIE, "")
        return hmac.new(self.operator.encode(), cookie.encode(), "sha256").hexdigest()
