"""Login by a secret token: in a form, in a link, or in the header ``Authorization: Bearer``.

Owns the signed cookie of a session, and how often somebody may try; pages are in `pages.login`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import secrets
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from durably.web import forged
from durably.web.access import Access, Person, Role, Who
from durably.web.errors import Refusal

SESSION_SECONDS = 12 * 3600

TRIES = 10
"""Wrong tokens that one address may send in `TRIES_SECONDS`."""

ALL_TRIES = 200
"""Wrong tokens from all addresses together."""

TRIES_SECONDS = 60.0

MAX_ADDRESSES = 1000
"""Of how many addresses the tries are remembered."""

NAME_CHARS = 60


class TokenAccess(Access):
    """Login by a secret token: in a form, a link (``?token=``), or ``Authorization: Bearer``.

    A session ends after twelve hours, and when the token by which somebody logged in changes.

    Args:
        operator: the token of those who may act; a random one by default.
        viewer: the token of those who may look; None: there are none.
        clock: seconds; for the rate of wrong tries.

    Attributes:
        operator: the token, to be told to whoever shall log in.
        generated: True if nobody chose it.
    """

    login = True

    @classmethod
    def from_environment(cls) -> TokenAccess:
        """By DURABLY_WEB_TOKEN and DURABLY_WEB_VIEWER_TOKEN; else by a new one, which it tells."""
        access = cls(
            os.environ.get("DURABLY_WEB_TOKEN"), os.environ.get("DURABLY_WEB_VIEWER_TOKEN")
        )
        if access.generated:
            print(
                f"durably.web: log in with the token {access.operator} "
                "(DURABLY_WEB_TOKEN sets one that stays)",
                file=sys.stderr,
                flush=True,
            )
        return access

    def __init__(
        self,
        operator: str | None = None,
        viewer: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.generated = not operator
        self.operator = operator or secrets.token_urlsafe(24)
        self.viewer = viewer
        tokens = {Role.OPERATOR: self.operator} | ({Role.VIEWER: viewer} if viewer else {})
        self._digests = {role: _digest(token) for role, token in tokens.items()}
        # Signed with the role's own token: whoever changes it ends the sessions that it began.
        self._signers = {
            role: URLSafeTimedSerializer(token, salt=f"durably-session-{role}")
            for role, token in tokens.items()
        }
        # Browsers keep cookies by host, whatever the port: two sites must not share one.
        self.cookie = f"durably_session_{_digest('cookie' + self.operator).hex()[:8]}"
        self._tries = Tries(TRIES, clock)
        self._all_tries = Tries(ALL_TRIES, clock)

    @property
    def who(self) -> Who:
        return self._who

    async def _who(self, request: Request) -> Person | None:
        if forged.by_bearer(request):
            token = request.headers["authorization"].partition(" ")[2].strip()
            role = self.role_of(token, request)
            return Person(role.value, role) if role else None
        return self.person_of(request.cookies.get(self.cookie, ""))

    def role_of(self, token: str, request: Request) -> Role | None:
        """The role that a token gives; None for a wrong one, which counts as a try.

        Raises:
            Refusal: 429 where there were too many; whether this one is right is not looked at.
        """
        address = request.client.host if request.client else ""
        wait = max(self._tries.wait(address), self._all_tries.wait(""))
        if wait:
            raise Refusal(
                429,
                f"Too many wrong tokens: try again in {wait} s.",
                headers={"Retry-After": str(wait)},
            )
        given, found = _digest(token), None
        for role, digest in self._digests.items():  # All of them: one takes as long as the other.
            if hmac.compare_digest(given, digest):
                found = found or role
        if found is None:
            self._tries.count(address)
            self._all_tries.count("")
        return found

    def begin(
        self, request: Request, response: Response, role: Role, name: str, path: str
    ) -> Person:
        """Begin a session: its cookie, below ``path``."""
        plain = "".join(c for c in name if c.isprintable() or c.isspace())
        person = Person(" ".join(plain.split())[:NAME_CHARS] or role.value, role)
        value = self._signers[role].dumps([person.name, secrets.token_urlsafe(12)])
        forged.set_cookie(request, response, self.cookie, value, path, SESSION_SECONDS)
        return person

    def end(self, response: Response, path: str) -> None:
        """End the browser's session."""
        response.delete_cookie(self.cookie, path=path, httponly=True, samesite="lax")

    def person_of(self, cookie: str) -> Person | None:
        """Who a session's cookie belongs to; None if it is none, or too old."""
        for role, signer in self._signers.items():
            try:
                name, _ = signer.loads(cookie, max_age=SESSION_SECONDS)
            except BadSignature:
                continue
            return Person(name, role)
        return None

    def login_url(self, request: Request) -> str | None:
        return request.url_for("durably:login").path

    def form_token(self, request: Request) -> str:
        cookie = request.cookies.get(self.cookie, "")
        return hmac.new(self.operator.encode(), cookie.encode(), "sha256").hexdigest()

    def finish(self, request: Request, response: Response, path: str) -> None:
        """The session's own cookie is all that forms need."""


class Tries:
    """How many wrong tries there were from each address within a while."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._since: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait(self, address: str) -> int:
        """Whole seconds until it may try again; 0: now."""
        began, count = self._since.get(address, (0.0, 0))
        left = began + TRIES_SECONDS - self._clock()
        return math.ceil(left) if count >= self._limit and left > 0 else 0

    def count(self, address: str) -> None:
        """One more wrong try."""
        now = self._clock()
        began, count = self._since.pop(address, (now, 0))
        if began + TRIES_SECONDS <= now:
            began, count = now, 0
        self._since[address] = (began, count + 1)
        if len(self._since) > MAX_ADDRESSES:
            self._since.popitem(last=False)


def _digest(token: str) -> bytes:
    """Of a fixed length, so that a comparison says nothing about it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
