"""A JSON schema as the fields of a form, and what was posted as the value that it describes.

Pure. Whether the value is what the schema allows is checked by whoever takes the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from durably.errors import ConfigError
from durably.web.views.values import editable, fields_of, items_of, text_of

PREFIX = "field."
"""What the names of posted fields begin with."""

MOST_FIELDS = 60
LONG_TEXT = 200

_INPUTS = {"date": "date", "email": "email", "date-time": "text", "uri": "url"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a form.

    Attributes:
        name: as it is posted.
        label: as the schema names it.
        kind: ``text``, ``date``, ``email``, ``url``, ``integer``, ``number``, ``long``, ``check``,
            ``choice`` or ``json``.
        value: what it says at first, as it is written there.
        choices: of a choice: the JSON of each value, and how it is shown.
    """

    name: str
    label: str
    hint: str
    kind: str
    required: bool
    value: str = ""
    choices: tuple[tuple[str, str], ...] = ()


def fields_from(schema: object, value: object = None) -> list[Field]:
    """The fields for an object of this schema; none if it describes anything else.

    Args:
        value: what is there already.
    """
    properties = fields_of(fields_of(schema).get("properties"))
    if not properties or len(properties) > MOST_FIELDS:
        return []
    required = items_of(fields_of(schema).get("required"))
    given = fields_of(value)
    return [
        _field(name, fields_of(described), name in required, given.get(name))
        for name, described in properties.items()
    ]


def value_from(schema: object, posted: Mapping[str, str]) -> dict[str, Any]:
    """What a person filled in; fields that were left empty and need not be there are left out.

    Raises:
        ConfigError: a field holds no number, or no JSON, where it should.
    """
    found: dict[str, Any] = {}
    for field in fields_from(schema):
        text = posted.get(field.name)
        if field.kind == "check":
            found[field.name.removeprefix(PREFIX)] = text is not None
        elif text or (field.required and field.kind in ("text", "long")):
            found[field.name.removeprefix(PREFIX)] = _value(field, text or "")
    return found


def _field(name: str, described: dict[str, Any], required: bool, given: object) -> Field:
    label = text_of(described.get("title")) or name.replace("_", " ")
    hint = text_of(described.get("description"))
    value = described.get("default") if given is None else given
    options = items_of(described.get("enum"))
    if options:
        choices = tuple((json.dumps(option), text_of(option)) for option in options)
        first = "" if value is None else json.dumps(value)
        return Field(PREFIX + name, label, hint, "choice", required, first, choices)
    kind = _kind(described)
    if value is None:
        shown = ""
    elif kind == "check":
        shown = "yes" if value is True else ""
    else:
        shown = editable(value) if kind == "json" else text_of(value)
    return Field(PREFIX + name, label, hint, kind, required, shown)


def _kind(described: dict[str, Any]) -> str:
    match described.get("type"):
        case "string":
            length = described.get("maxLength")
            long = isinstance(length, int) and length > LONG_TEXT
            return "long" if long else _INPUTS.get(text_of(described.get("format")), "text")
        case "integer" | "number" as number:
            return number
        case "boolean":
            return "check"
        case _:
            return "json"


def _value(field: Field, text: str) -> Any:
    if field.kind in ("integer", "number"):
        try:
            number = json.loads(text)
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ConfigError(f"{field.label}: {text!r} is no number.")
        return number
    if field.kind in ("choice", "json"):
        return json_from(field.label, text)
    return text.replace("\r\n", "\n")


def json_from(what: str, text: str) -> Any:
    """The JSON that somebody typed.

    Raises:
        ConfigError: it is none.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'{what} is not JSON: {error}. Text stands in quotes: "like this".'
        ) from error
