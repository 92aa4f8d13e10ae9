"""How the REST API speaks: JSON in and out, checked texts and values, one kind of error.

Owns that for every module beside it; what they answer is theirs.
"""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, cast

from fastapi import APIRouter, Path
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from durably.web.errors import MEDIA_TYPE, Problem
from durably.web.routing import RestRoute

MAX_NAME_CHARS = 500
"""Of keys and names; what an index of PostgreSQL surely takes."""

MAX_DEPTH = 64
"""How deep JSON may be nested."""

MAX_ID = 2**53 - 1
"""The highest number that JSON surely tells from the next one; no ledger counts so far."""

NOT_NUL = r"^[^\x00]*$"

SAID = {
    400: "What was sent is no JSON.",
    401: "Nobody is known by what was sent.",
    403: "A viewer may not act; nor may a request that another site made.",
    404: "There is no such thing.",
    409: "The run's state does not allow it, its key is taken, or what is stored cannot be read.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    422: "What was sent cannot be; says where and why.",
    429: "Too many wrong tokens.",
    503: "The ledger cannot be used now.",
}

READING = (401, 403, 422, 429, 503)
ACTING = (400, 401, 403, 413, 415, 422, 429, 503)


class Answer(Response):
    """A model as JSON, in ASCII: whatever was stored, it can be sent and read."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        shown = content.model_dump() if isinstance(content, BaseModel) else content
        return json.dumps(shown, default=_plain, allow_nan=False).encode()


class Model(BaseModel):
    """What is answered; made from the ledger's records."""

    model_config = ConfigDict(from_attributes=True)


class Asked(BaseModel):
    """What is sent; nothing that is not known, so that a mistyped option is not lost."""

    model_config = ConfigDict(extra="forbid")


def fields_of(record: object, model: type[Model]) -> dict[str, Any]:
    """Of a record what a model shows."""
    return {name: getattr(record, name) for name in model.model_fields}


def rest_routes(tag: str) -> APIRouter:
    """For the routes of one subject."""
    return APIRouter(prefix="/api", tags=[tag], route_class=RestRoute)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the description says of errors, by their statuses."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": SAID[status], "model": Problem, "content": content}
        for status in sorted(statuses)
    }


def of_run(*more: int) -> dict[int | str, dict[str, Any]]:
    """The errors of what is asked about a run."""
    return problems(*READING, 404, *more)


def acting(*more: int) -> dict[int | str, dict[str, Any]]:
    """The errors of what changes something."""
    return problems(*ACTING, *more)


def acting_on_run(*more: int) -> dict[int | str, dict[str, Any]]:
    """The errors of what changes a run."""
    return acting(404, 409, *more)


# --- what is sent. No `type` aliases: pydantic would describe them apart, and lose what is added.


def _whole(text: object) -> object:
    """A text that any encoding has; ValueError for another."""
    if isinstance(text, str):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character, which is no text") from None
    return text


def _checked_text(text: object) -> object:
    """A text that any database stores; ValueError for another."""
    if isinstance(text, str) and "\0" in text:
        raise ValueError("it holds the character NUL, which no database stores as text")
    return _whole(text)


def _json(value: Any) -> Any:
    """Any JSON value, as far as it is nested and as large as it can be stored."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*cast("dict[str, Any]", value).values()]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it holds NaN or Infinity, which are no JSON")
    return cast("list[Any]", value) if isinstance(value, list) else []


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty")
    return text


def _number(value: Any) -> Any:
    """JSON tells a number from a text and from true; so does this."""
    if isinstance(value, bool | str):
        raise ValueError("it is no number")
    return value


# Checks come last: what is added behind one is not described. They say it in words, so the patterns
# are only described.
NUMBER = BeforeValidator(_number)
TEXT = BeforeValidator(_checked_text)
_LENGTH = Field(min_length=1, max_length=MAX_NAME_CHARS)
_NOT_NUL = Field(json_schema_extra={"pattern": NOT_NUL})
_NOT_EMPTY = Field(json_schema_extra={"pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"})

Prose = Annotated[str, BeforeValidator(_whole)]
"""A text that is stored as JSON, where NUL can be written."""

Text = Annotated[str, _NOT_NUL, TEXT]
Name = Annotated[str, _LENGTH, _NOT_NUL, TEXT]
Word = Annotated[str, _LENGTH, _NOT_EMPTY, TEXT, AfterValidator(_said)]
Json = Annotated[Any, AfterValidator(_json)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_json)]
Flag = Annotated[bool, Field(strict=True)]


def named(description: str) -> Any:
    """How a name in an address is described."""
    return Path(
        description=description,
        min_length=1,
        max_length=MAX_NAME_CHARS,
        json_schema_extra={"pattern": NOT_NUL},
    )


Key = Annotated[str, named("The run's key; it may hold slashes."), TEXT]


# --- what is answered


def parsed(text: str | None) -> Any:
    """What a stored JSON text says; the text itself if it is damaged."""
    if text is None:
        return None
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
