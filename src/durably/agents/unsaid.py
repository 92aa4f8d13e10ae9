"""Fields that the row of a message leaves out: those that hold their default.

Owns which fields these are. Messages have dozens of them, a quarter of what would be stored.
Pydantic-ai reads messages without them as it reads histories from before it had the field. Only
fields of messages, of their parts and of their usage are left out, never what a tool was given or
returned: there a null is what the model has seen.
"""

from __future__ import annotations

import dataclasses
import typing
from functools import cache
from typing import Any, cast

from pydantic_ai.messages import ModelMessage, ModelResponse

type Names = dict[str, Any]
"""Fields to leave out, or what to leave out of them, as pydantic's ``exclude`` takes it."""


def unsaid(message: ModelMessage) -> Names:
    """What to leave out of one message."""
    found = _at_default(message)
    parts = {at: names for at, part in enumerate(message.parts) if (names := _at_default(part))}
    if parts:
        found["parts"] = parts
    if isinstance(message, ModelResponse) and (names := _at_default(message.usage)):
        found["usage"] = names
    return found


def _at_default(value: object) -> Names:
    return {
        name: True
        for name, default in _defaults(type(value))
        if (held := getattr(value, name)) is default
        or (type(held) is type(default) and held == default)
    }


@cache
def _defaults(cls: type) -> tuple[tuple[str, object], ...]:
    """The fields that have a value by default, and which; not those that say what this is."""
    if not dataclasses.is_dataclass(cls):
        return ()
    fields = [field for field in dataclasses.fields(cast(Any, cls)) if field.init]
    plain = [(f.name, f.default) for f in fields if _is_plain(f.default) and not _says_kind(f)]
    empty = [(f.name, f.default_factory()) for f in fields if _makes_empty(f.default_factory)]
    return (*plain, *empty)


def _is_plain(default: object) -> bool:
    return default is None or isinstance(default, (bool, int, float, str))


def _says_kind(field: dataclasses.Field[Any]) -> bool:
    return field.default is not None and field.name.endswith("kind")


def _makes_empty(factory: object) -> typing.TypeGuard[type[dict[Any, Any] | list[Any]]]:
    return (typing.get_origin(factory) or factory) in (dict, list)
