"""Reads JSON through a pydantic adapter so that nothing in it is lost without a word.

Owns the refusals and where they point; what the values mean is left to history.py and codec.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pydantic
from pydantic_core import ErrorDetails, PydanticSerializationError

from durably.errors import HistoryError

# Bytes as base64, as pydantic-ai's own adapters write them: not every byte string is UTF-8.
BASE64 = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", defer_build=True)

# What dumping a value that is not JSON can raise; pydantic-ai's own serialisers add ValueError.
NOT_JSON = (PydanticSerializationError, ValueError, TypeError, RecursionError)

_EXTRA = frozenset({"unexpected_keyword_argument", "extra_forbidden"})
_JSON_NAMES: dict[type[object], str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}

# The place of an item: keys and indexes from the item's own root.
Steps = tuple[str | int, ...]


def parse_json(data: str | bytes, path: str = "") -> Any:
    """The JSON value in ``data``; HistoryError with line and column when it is not JSON."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        return json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise HistoryError(f"not UTF-8 text: byte {error.start} is not valid.", path) from error
    except json.JSONDecodeError as error:
        early = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        hint = " It ends too early: truncated?" if early else ""
        where = f"line {error.lineno}, column {error.colno}"
        raise HistoryError(f"not JSON: {error.msg} ({where}).{hint}", path) from error
    except RecursionError as error:
        raise HistoryError("nested too deeply to be read.", path) from error
    except ValueError as error:  # NaN and Infinity, or a number with thousands of digits
        raise HistoryError(f"not JSON: {error}.", path) from error


def json_name(value: object) -> str:
    """What a JSON value is, in words: ``an object``, ``a string`` …"""
    return _JSON_NAMES.get(type(value), type(value).__name__)


def join_path(root: str, steps: Sequence[str | int]) -> str:
    """``[3].parts[0].content`` from a root and steps."""
    path = root
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def read_exactly[T](
    adapter: pydantic.TypeAdapter[list[T]],
    raw: Sequence[object],
    text: str,
    place: Callable[[int], str],
    context: Mapping[str, object] | None = None,
) -> list[T]:
    """Validate a list and prove that writing it again gives back all that was read.

    pydantic drops fields that it does not know without a word, and older versions of pydantic-ai
    take an object that a tool returned for a file if it looks like one. So what was read is
    written again and compared; only if that differs is it worth finding out why.

    Args:
        adapter: reads and writes a list of items.
        raw: the list as plain JSON values, parsed from ``text``.
        text: the list as JSON.
        place: an item's index to its path in the caller's document.
        context: pydantic's validation context.
    """
    ctx = dict(context) if context is not None else None
    try:
        found = adapter.validate_json(text, context=ctx)
    except pydantic.ValidationError as error:
        raise _unreadable(error, raw, place) from error
    written = _rewrite(adapter, found)
    if _covers(written, raw):
        return found
    try:
        strict = adapter.validate_json(text, context=ctx, extra="forbid")
    except pydantic.ValidationError as error:
        _refuse_lost_fields(error, raw, written, place)
        return found
    # Refusing extras makes an object that only resembles a file stay the object that it was.
    return strict if _covers(_rewrite(adapter, strict), raw) else found


def _rewrite[T](adapter: pydantic.TypeAdapter[list[T]], items: list[T]) -> object:
    return json.loads(adapter.dump_json(items, by_alias=True))


def _covers(written: Any, raw: Any) -> bool:
    """Whether all that was read is written again; defaults that the document left out may join."""
    if type(written) is not type(raw):
        return False
    if isinstance(raw, dict):
        fields = cast(dict[str, Any], raw)
        return all(name in written and _covers(written[name], fields[name]) for name in fields)
    if isinstance(raw, list):
        items = cast(list[Any], raw)
        return len(written) == len(items) and all(map(_covers, written, items))
    return bool(written == raw)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


def _refuse_lost_fields(
    error: pydantic.ValidationError,
    raw: Sequence[object],
    written: object,
    place: Callable[[int], str],
) -> None:
    """Raise for the first field that this version would drop, unless it carries nothing.

    A newer pydantic-ai writes its new fields as null or empty wherever they are unused: refusing
    those would stop every run while a deploy has both versions at work.
    """
    for details in error.errors(include_url=False, include_context=False):
        if details["type"] not in _EXTRA:
            continue
        steps = _steps(details, raw)
        if details["input"] in (None, [], {}, "") or _kept(steps, written):
            continue
        index, *inner = steps
        raise HistoryError(
            f"unknown field {str(inner[-1])!r}: written by a newer version? "
            f"This one would lose it silently ({library()}).",
            join_path(place(cast(int, index)), inner),
        ) from error


def _kept(steps: Steps, written: object) -> bool:
    """Whether the field was written again: some types keep fields that they do not declare."""
    here = written
    for step in steps:
        if isinstance(here, dict) and step in here:
            here = cast(dict[str | int, object], here)[step]
        elif isinstance(here, list) and isinstance(step, int) and step < len(cast(Any, here)):
            here = cast(list[object], here)[step]
        else:
            return False
    return True


def _unreadable(
    error: pydantic.ValidationError, raw: Sequence[object], place: Callable[[int], str]
) -> HistoryError:
    """The HistoryError for what pydantic refused, at the deepest place that it names."""
    found = [d for d in error.errors(include_url=False) if d["type"] not in _EXTRA]
    # A union names the errors of every branch. What counts is the branch that the document means,
    # then an unknown kind, then the deepest place; at that place the reader wants them all.
    best = max(found, key=lambda d: _relevance(d, raw))
    deepest = _steps(best, raw)
    peers = [d for d in found if _relevance(d, raw) == _relevance(best, raw)]
    said = list(dict.fromkeys(_say(d) for d in peers if _steps(d, raw) == deepest))[:3]
    message = f"{' or '.join(said)}."
    if not deepest:
        return HistoryError(message, place(0) if len(raw) == 1 else "")
    index, *inner = deepest
    return HistoryError(message, join_path(place(cast(int, index)), inner))


def _say(details: ErrorDetails) -> str:
    context = details.get("ctx") or {}
    match details["type"]:
        case "missing":
            return "the field is missing"
        case "union_tag_invalid":
            known = str(context.get("expected_tags")).replace("'", "")
            return (
                f"unknown kind {context.get('tag')!r}: written by a newer version? "
                f"This one knows: {known} ({library()})"
            )
        case "union_tag_not_found" if isinstance(details["input"], dict):
            return "the field that says its kind is missing"
        case "union_tag_not_found":
            return f"should be an object, not {json_name(details['input'])}"
        case _:
            message = details["msg"]
            return f"{message[0].lower()}{message[1:]}, found {json_name(details['input'])}"


def _relevance(details: ErrorDetails, raw: object) -> tuple[int, bool, int]:
    steps, branches = _walk(details, raw)
    return branches, details["type"] == "union_tag_invalid", len(steps)


def _steps(details: ErrorDetails, raw: object) -> Steps:
    return _walk(details, raw)[0]


def _walk(details: ErrorDetails, raw: object) -> tuple[Steps, int]:
    """The error's place in the document, and how many branches on the way the document names.

    pydantic's own location also names the branches of unions, which are no places.
    """
    steps: list[str | int] = []
    branches = 0
    here = raw
    for step in details["loc"]:
        if isinstance(here, list) and isinstance(step, int):
            items = cast(list[object], here)
            if step < len(items):
                steps.append(step)
                here = items[step]
        elif isinstance(here, dict):
            fields = cast(dict[str | int, object], here)
            if step in fields:
                steps.append(step)
                here = fields[step]
            elif step in (fields.get("kind"), fields.get("part_kind")):
                branches += 1
    if details["type"] == "missing" and details["loc"]:
        steps.append(details["loc"][-1])
    return tuple(steps), branches


def library() -> str:
    """Which pydantic-ai reads and writes here, for messages."""
    from pydantic_ai import __version__

    return f"pydantic-ai {__version__}"


def why_not_json(error: BaseException) -> str:
    """What a failed dump found, as the end of "… holds"."""
    text = str(error)
    marker = "Unable to serialize unknown type: <class '"
    if marker in text:
        return f"a {text.split(marker, 1)[1].split("'", 1)[0]}"
    deep = ("Circular reference", "depth exceeded", "recursion limit")
    if isinstance(error, RecursionError) or any(words in text for words in deep):
        return "a value that contains itself or is nested too deeply"
    if "surrogates" in text:
        return "text that is not valid Unicode"
    return f"a value that fails to serialise ({text.splitlines()[-1] if text else error!r})"
