"""Fields that the row of a message leaves out: those that say nothing and come back by themselves.

Owns which fields these are. A model's messages have dozens of them, a quarter of what would be
stored. Only fields of messages, of their parts and of their usage are left out, never what a tool
was given or returned: there a null is what the model has seen.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any, cast

from pydantic_ai.messages import ModelMessage, ModelResponse

type Names = dict[str, Any]
"""Fields to leave out, or what to leave out of them, as pydantic's ``exclude`` takes it."""


def unsaid(message: ModelMessage) -> Names:
    """What to leave out of one message."""
    found = _defaults(message)
    parts = {at: names for at, part in enumerate(message.parts) if (names := _defaults(part))}
    if parts:
        found["parts"] = parts
    if isinstance(message, ModelResponse) and (names := _defaults(message.usage)):
        found["usage"] = names
    return found


def _defaults(value: object) -> Names:
    return {
        name: True for name, default in _telling(type(value)) if _is(getattr(value, name), default)
    }


def _is(value: object, default: object) -> bool:
    return value is default or (type(value) is type(default) and value == default)


@cache
def _telling(cls: type) -> tuple[tuple[str, object], ...]:
    """The fields that are null, or a count of 0, when they are read from JSON without them."""
    if not dataclasses.is_dataclass(cls):
        return ()
    return tuple(
        (field.name, field.default)
        for field in dataclasses.fields(cast(Any, cls))
        if field.init
        and (field.default is None or (type(field.default) is int and not field.default))
    )
