"""Which types an agent's output can have, from what its ``output_type`` says.

Owns taking the specification apart and reading one type; which reading counts is codec.py's.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pydantic
import typing_extensions
from pydantic_ai import (
    DeferredToolRequests,
    NativeOutput,
    PromptedOutput,
    TextOutput,
    ToolOutput,
)

from durably.agents.exact import BASE64

# One member of a specification resolves to any number of types.
_Types = list[Any]

_ALIASES = (typing.TypeAliasType, typing_extensions.TypeAliasType)


class _Unresolved(Exception):
    """A member whose type nobody can know, such as a function without a return annotation."""


def resolve_output_types(output_type: object) -> list[Any] | None:
    """Every type that the output can have, each once; None when one of them cannot be known."""
    try:
        found = _resolve(output_type)
    except _Unresolved:
        return None
    unique: _Types = []
    for type_ in found:
        if type_ not in unique:
            unique.append(type_)
    return unique


def read_as(type_: Any, text: str) -> list[Any]:
    """The one value of this type that the JSON stands for, or none."""
    try:
        adapter: pydantic.TypeAdapter[list[Any]] = pydantic.TypeAdapter(
            cast(Any, list).__class_getitem__(type_), config=BASE64
        )
        return adapter.validate_json(f"[{text}]", by_alias=True, by_name=True)
    except (pydantic.ValidationError, pydantic.errors.PydanticUserError, NameError):
        # Not a value of this type, or not a type that pydantic can read.
        return []


def _resolve(spec: object) -> _Types:
    if isinstance(spec, ToolOutput):
        return _resolve(cast(Any, spec).output)
    if isinstance(spec, NativeOutput | PromptedOutput):
        return _resolve(cast(Any, spec).outputs)
    if isinstance(spec, TextOutput):
        return _resolve_function(cast(Any, spec).output_function)
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        return [type_ for member in cast(Sequence[object], spec) for type_ in _resolve(member)]
    if isinstance(spec, _ALIASES):
        return _resolve(cast(Any, spec).__value__)
    if spec is DeferredToolRequests:
        return []  # a run that waits has no output yet
    if spec is None or spec is types.NoneType:
        return [types.NoneType]
    return _resolve_type(spec)


def _resolve_type(spec: object) -> _Types:
    origin = typing.get_origin(spec)
    if origin in (typing.Union, types.UnionType):
        return [type_ for member in typing.get_args(spec) for type_ in _resolve(member)]
    if isinstance(origin, _ALIASES):
        return [spec]  # a generic alias with its arguments; pydantic knows what to do
    if origin is not None or isinstance(spec, type):
        return [spec]
    if callable(spec):
        return _resolve_function(spec)
    raise _Unresolved


def _resolve_function(function: Callable[..., object]) -> _Types:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        returned = typing.get_type_hints(target, include_extras=True).get("return", Any)
    except Exception as error:  # an annotation can be any expression, and fail in any way
        raise _Unresolved from error
    if typing.get_origin(returned) in (Awaitable, typing.Coroutine):
        returned = typing.get_args(returned)[-1]
    if returned in (Any, object) or isinstance(returned, typing.TypeVar):
        raise _Unresolved
    return _resolve(returned)
