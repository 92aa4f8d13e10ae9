"""What went wrong, as a status and a sentence: problem details for programs (RFC 9457).

Owns the one table from durably's errors to statuses; how a page shows one is `pages.rendering`'s.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from durably import errors

MEDIA_TYPE = "application/problem+json"

RETRY_SECONDS = "2"
"""When to ask again for what a database that is away could not do."""


_OF_PYDANTIC = re.compile(r"^[A-Z]\w+$|\[")


class Refusal(HTTPException):
    """A request that is refused by the site itself, with a sentence for who sent it."""


TABLE: tuple[tuple[type[Exception], int], ...] = (
    (errors.RunNotFound, 404),
    (errors.EffectNotFound, 404),
    (errors.KeyConflict, 409),
    (errors.ThreadBusy, 409),
    (errors.TransitionRefused, 409),
    (errors.LeaseLost, 409),
    (errors.UnknownAgent, 422),
    (errors.ConfigError, 422),
    (errors.ResultNotSerializable, 422),
    (errors.CorruptRecord, 409),
    (errors.HistoryError, 422),
    (errors.LedgerUnavailable, 503),
    (errors.LedgerClosed, 503),
    (errors.LedgerMoved, 503),
    (errors.SchemaError, 503),
    (errors.LedgerCorrupt, 503),
    (errors.LedgerError, 422),  # It refused what was to be written.
)
"""The status of each error; the first that fits. What is not here is nobody's mistake but ours."""


class Place(BaseModel):
    """One thing that is wrong with what was sent."""

    model_config = ConfigDict(title="Place")

    where: Annotated[str, Field(description="The field, such as `body.priority` or `query.limit`.")]
    what: Annotated[str, Field(description="What is wrong with it.")]


class Problem(BaseModel):
    """Why a request was not answered (RFC 9457)."""

    type: Annotated[
        str, Field(description="Which error it is: `urn:durably:run-not-found`, or `about:blank`.")
    ]
    title: Annotated[str, Field(description="The same, in a few words.")]
    status: Annotated[int, Field(description="The HTTP status.")]
    detail: Annotated[str, Field(description="What is wrong here, and what to do; a sentence.")]
    errors: Annotated[
        list[Place] | None, Field(description="Where the request is wrong, field by field.")
    ] = None


class Wrong(NamedTuple):
    """An error as it is shown: to a program as a `Problem`, to a person on a page."""

    status: int
    title: str
    detail: str
    type: str = "about:blank"
    errors: list[Place] | None = None
    headers: dict[str, str] | None = None


def wrong(error: Exception) -> Wrong | None:
    """What to say of an error; None where it is not the site's to answer.

    Those of an application's own dependencies are answered if they are plain ``HTTPException``;
    a class of the application's own is left to its own handlers, as is a redirect.
    """
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        ours = type(error) is Refusal or type(error).__module__.startswith(("fastapi", "starlette"))
        return _http(error) if ours and error.status_code >= 400 else None
    for kind, status in TABLE:
        if isinstance(error, kind):
            headers = {"Retry-After": RETRY_SECONDS} if status == 503 else None
            name = "".join(f"-{c.lower()}" if c.isupper() else c for c in type(error).__name__)
            title = name.replace("-", " ").strip().capitalize()
            return Wrong(status, title, str(error), f"urn:durably:{name[1:]}", headers=headers)
    return None


def problem(found: Wrong) -> Response:
    """An error for a program."""
    body = Problem(
        type=found.type,
        title=found.title,
        status=found.status,
        detail=printable(found.detail),
        errors=found.errors,
    ).model_dump(exclude_none=True)
    return Response(json.dumps(body), found.status, found.headers, MEDIA_TYPE)


def printable(text: str) -> str:
    """A text that can be sent: halves of characters, which no encoding has, as signs."""
    return text.encode("utf-8", "backslashreplace").decode()


def _http(error: HTTPException) -> Wrong:
    phrase = HTTPStatus(error.status_code).phrase
    headers = dict(error.headers) if error.headers else None
    return Wrong(error.status_code, phrase, str(error.detail), headers=headers)


def _invalid(error: RequestValidationError) -> Wrong:
    places = [
        Place(where=_where(e), what=printable(str(e["msg"]).removeprefix("Value error, ")))
        for e in error.errors()
    ]
    unread = any(e["type"] == "json_invalid" for e in error.errors())
    status = 400 if unread else 422
    said = "; ".join(f"{place.where}: {place.what}" for place in places[:3])
    return Wrong(status, HTTPStatus(status).phrase, said, errors=places)


def _where(found: dict[str, Any]) -> str:
    # Where there is more than one way, the way that was tried is named as well: by a class.
    parts = [str(part) for part in found.get("loc", ())]
    return printable(".".join(part for part in parts if not _OF_PYDANTIC.search(part)))
