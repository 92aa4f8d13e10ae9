"""Messages to and from JSON; public as ``durably.history``.

Owns what a stored history looks like and which histories are refused; which message is stored
when is left to the journal, and the recipe's own format to recipe.py.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pydantic
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    ToolReturnPart,
)

from durably.agents.exact import (
    NOT_JSON,
    join_path,
    json_name,
    library,
    parse_json,
    read_exactly,
    why_not_json,
)
from durably.agents.recipe import is_recipe, translate_recipe
from durably.agents.unsaid import unsaid
from durably.errors import HistoryError, ResultNotSerializable

# The ledger's rows were written by this application. Those from before pydantic-ai recorded which
# objects of a tool's result are files load as they did then; an imported history does not.
OWN_ROWS = {"pydantic_ai": {"rebuild_unrecorded_tool_files": True}}


class _Probe(pydantic.BaseModel):
    field: int = pydantic.Field(default=0, serialization_alias="alias")


# Versions differ in whether the model is shown a result's aliases. It has to see the same after a
# resume, when the result is no longer a pydantic model but what was stored of it.
BY_ALIAS = "alias" in ToolReturnPart("probe", _Probe()).model_response_str()

# In a list of either kind, pydantic serialises a response twice. Bytes are as in pydantic-ai's.
_BYTES = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_OF_ONE_KIND: dict[type, pydantic.TypeAdapter[Any]] = {
    ModelRequest: pydantic.TypeAdapter(list[ModelRequest], config=_BYTES),
    ModelResponse: pydantic.TypeAdapter(list[ModelResponse], config=_BYTES),
}


def to_json(messages: Sequence[ModelMessage]) -> str:
    """The messages as a compact JSON list, in pydantic-ai's own format.

    Raises:
        ResultNotSerializable: a message holds something that is not JSON; names the tool.
    """
    return _written(messages, ModelMessagesTypeAdapter)


def from_json(data: str | bytes) -> list[ModelMessage]:
    """The messages in a JSON list: pydantic-ai's own format, or the original recipe's.

    What ``to_json`` wrote comes back equal, and ``to_json`` of that is the same text. Values that
    have no JSON type of their own come back as JSON has them: a tuple as a list, a date as a
    string, a tool's pydantic model as a dict, NaN as null.

    Raises:
        HistoryError: not JSON, truncated, wrongly typed, or written by a newer version; says where.
    """
    raw = parse_json(data)
    if not isinstance(raw, list):
        raise HistoryError(f"a history is a list of messages, not {json_name(raw)}.")
    items = cast(list[object], raw)
    if is_recipe(items):
        items = cast(list[object], translate_recipe(items))
        return _read(items, json.dumps(items))
    return _read(items, data if isinstance(data, str) else data.decode())


def message_to_json(message: ModelMessage) -> str:
    """One message as a compact JSON object, without what is `unsaid`: a row of the ledger.

    Raises:
        ResultNotSerializable: it holds something that is not JSON; names the tool.
    """
    adapter = _OF_ONE_KIND.get(type(message), ModelMessagesTypeAdapter)
    return _written([message], adapter, {0: unsaid(message)})[1:-1]


def message_from_json(text: str, path: str = "") -> ModelMessage:
    """The message in one row; ``path`` begins the path of any HistoryError."""
    raw = [parse_json(text, path)]
    _check_kinds(raw, lambda _: path)
    return read_exactly(
        ModelMessagesTypeAdapter, raw, f"[{text}]", lambda _: path, context=OWN_ROWS
    )[0]


def messages_from_rows(rows: Sequence[str]) -> list[ModelMessage]:
    """The history in the ledger's rows, in order."""
    raw = [parse_json(row, f"[{index}]") for index, row in enumerate(rows)]
    return _read(raw, f"[{','.join(rows)}]", context=OWN_ROWS)


def part_types() -> dict[str, tuple[type, ...]]:
    """The classes of the parts that the installed pydantic-ai knows, by message kind.

    Read from the type of ``ModelMessage`` itself: the classes differ from version to version.
    """
    messages: tuple[type, ...] = (ModelRequest, ModelResponse)
    found: dict[str, tuple[type, ...]] = {}
    for message in messages:
        parts = typing.get_type_hints(message, include_extras=True)["parts"]
        found[_default(message, "kind")] = tuple(dict.fromkeys(_dataclasses_in(parts)))
    return found


def _written(
    messages: Sequence[ModelMessage],
    adapter: pydantic.TypeAdapter[Any],
    exclude: dict[int, Any] | None = None,
) -> str:
    try:
        return adapter.dump_json(list(messages), by_alias=BY_ALIAS, exclude=exclude).decode()
    except NOT_JSON as error:
        raise _name_the_culprit(messages, error) from error


def _dataclasses_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _dataclasses_in(argument)


def _default(cls: type, name: str) -> str:
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
    return cast(str, fields[name].default)


def _part_kinds(kind: str) -> dict[str, type]:
    # Reversed, so that of a class and its typed variants the first named, the plain one, stays.
    return {_default(cls, "part_kind"): cls for cls in reversed(part_types()[kind])}


def _read(
    raw: list[object], text: str, context: dict[str, Any] | None = None
) -> list[ModelMessage]:
    def place(index: int) -> str:
        return f"[{index}]"

    _check_kinds(raw, place)
    return read_exactly(ModelMessagesTypeAdapter, raw, text, place, context)


def _check_kinds(raw: Sequence[object], place: Callable[[int], str]) -> None:
    """Refuse unknown kinds in the document's own words; pydantic's name internal tags."""
    known = {kind: _part_kinds(kind) for kind in part_types()}
    for index, message in enumerate(raw):
        fields = _object(message, place(index), "message")
        kind = _kind(fields, "kind", known, place(index), "message kind")
        parts = fields.get("parts")
        if not isinstance(parts, list):
            continue
        for number, part in enumerate(cast(list[object], parts)):
            path = join_path(place(index), ["parts", number])
            part_fields = _object(part, path, "message part")
            part_kind = _kind(part_fields, "part_kind", known[kind], path, "part_kind")
            if part_kind == "retry-prompt":
                _check_legacy_retry(part_fields, known[kind][part_kind], path)


def _object(value: object, path: str, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise HistoryError(f"a {what} is an object, not {json_name(value)}.", path)
    return cast(dict[str, object], value)


def _kind(fields: dict[str, object], key: str, known: dict[str, Any], path: str, what: str) -> str:
    if key not in fields:
        raise HistoryError(f"the field {key!r}, which says what it is, is missing.", path)
    kind = fields[key]
    if not isinstance(kind, str):
        raise HistoryError(f"should be a string, not {json_name(kind)}.", join_path(path, [key]))
    if kind not in known:
        raise HistoryError(
            f"unknown {what} {kind!r}: written by a newer pydantic-ai? "
            f"This version knows: {', '.join(sorted(known))} ({library()}).",
            path,
        )
    return kind


def _check_legacy_retry(fields: dict[str, object], cls: type, path: str) -> None:
    # Newer versions translate this part before they look at its fields, and drop what is left.
    declared = {field.name for field in dataclasses.fields(cast(Any, cls))}
    for name, value in fields.items():
        if name not in declared and value not in (None, [], {}, ""):
            raise HistoryError(f"unknown field {name!r} ({library()}).", f"{path}.{name}")


def _name_the_culprit(messages: Sequence[ModelMessage], error: Exception) -> ResultNotSerializable:
    for index, message in enumerate(messages):
        for number, part in enumerate(message.parts):
            alone = (
                ModelRequest(parts=cast(Any, [part]))
                if isinstance(message, ModelRequest)
                else ModelResponse(parts=cast(Any, [part]))
            )
            try:
                ModelMessagesTypeAdapter.dump_json([alone], by_alias=BY_ALIAS)
            except NOT_JSON as found:
                return ResultNotSerializable(_accuse(part, f"[{index}].parts[{number}]", found))
    return ResultNotSerializable(
        f"A message of the history holds {why_not_json(error)}, which cannot be written as JSON."
    )


def _accuse(part: object, path: str, error: Exception) -> str:
    held = f"{why_not_json(error)}, which cannot be written as JSON"
    tool = getattr(part, "tool_name", None)
    if tool is None:
        return f"The {getattr(part, 'part_kind', 'unknown')} part at {path} holds {held}."
    if hasattr(part, "args"):
        return f"The arguments of the call to tool {tool!r} at {path} hold {held}."
    return (
        f"The result of tool {tool!r} at {path} holds {held}; return JSON values, a pydantic "
        "model, a dataclass or a ToolReturn of these instead."
    )
