"""A form for any JSON value, from its JSON schema: which field stands for which part of it.

Pure. Owns what each field is and how it is named; `forms` reads back what was filled in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

type Schema = Mapping[str, Any]

MAX_DEPTH = 4
"""Objects within objects that have fields of their own; what is deeper is written as JSON."""

MAX_FIELDS = 60

LONG = 60

# A text field cannot carry these: a browser changes or refuses them.
_UNTYPABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


class Missing:
    """There is no value, which is not the same as null."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class Kind:
    """What a schema asks for, as far as a form can ask for it.

    Attributes:
        name: ``text``, ``integer``, ``number``, ``boolean``, ``choice``, ``lines`` (a list, an item
            a line), ``checks`` (a list of choices), ``object``, or ``json`` for all else.
        item: of ``lines``, what each item is.
        nullable: null will do as well.
    """

    name: str
    schema: Schema
    item: str = ""
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One field, or for an object a group of them.

    Attributes:
        name: its place in the value; what the form posts it under.
        kind: as of `Kind`; an optional ``boolean`` is asked with three answers.
        text: what is in it.
        chosen: the options that are chosen, by their number.
        empty: JSON of what it means when nothing is in it; None: then it is left out.
        required: something must be in it.
        error: what is wrong with what is in it.
    """

    name: str
    label: str
    kind: str
    hint: str = ""
    text: str = ""
    options: tuple[str, ...] = ()
    chosen: tuple[int, ...] = ()
    fields: tuple[Field, ...] = ()
    empty: str | None = None
    required: bool = True
    error: str = ""

    @property
    def id(self) -> str:
        """Its id on the page."""
        return "field-" + re.sub(r"[^A-Za-z0-9_-]", lambda m: f".{ord(m[0]):x}", self.name)

    @property
    def long(self) -> bool:
        """It wants more than one line."""
        return "\n" in self.text or len(self.text) > LONG

    @property
    def posted(self) -> str:
        """The name that it is posted under."""
        return f"json:{self.name}" if self.kind == "json" else self.name


def posted_by(field: Field) -> dict[str, list[str]]:
    """What a browser posts for a field that nobody touches."""
    posted: dict[str, list[str]] = {}
    if field.empty is not None:
        posted[f"empty:{field.name}"] = [field.empty]
    for inner in field.fields:
        posted |= posted_by(inner)
    if field.kind in ("check", "checks") or field.options:
        # Each box once, in the order of the page.
        posted[field.name] = [str(number) for number in sorted(set(field.chosen))]
    elif field.kind != "object":
        posted[field.posted] = [_UNTYPABLE.sub("", field.text)]
    return posted


def kind_of(schema: Any, root: Schema, depth: int = 0) -> Kind:
    """What a schema asks for; ``root`` has the definitions that it refers to."""
    found, nullable = _resolved(schema, root)
    name, item = _kind_name(found, root, depth)
    return Kind(name, found, item, nullable)


def place(parent: str, part: str | int) -> str:
    """The name of a part of a value, as a JSON pointer has it."""
    return f"{parent}/{str(part).replace('~', '~0').replace('/', '~1')}"


def choices_of(kind: Kind) -> list[Any]:
    """What there is to choose from."""
    schema = kind.schema["items"] if kind.name == "checks" else kind.schema
    return [schema["const"]] if "const" in schema else list(schema["enum"])


def option_of(kind: Kind, value: Any) -> int | None:
    """The number of a choice; true and 1 are not the same one."""
    for number, choice in enumerate(choices_of(kind)):
        if choice == value and type(choice) is type(value):
            return number
    return None


def line_of(item: Any) -> str:
    """An item of a list, in its line."""
    return item if isinstance(item, str) else json.dumps(item)


def _chosen(kind: Kind, value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = [option_of(kind, item) for item in cast("list[Any]", value)]
    return None if None in numbers else tuple(cast("list[int]", numbers))


def chosen_of(kind: Kind, value: Any) -> tuple[int, ...]:
    """The numbers of what is chosen."""
    if kind.name == "checks":
        return _chosen(kind, value) or ()
    number = option_of(kind, value)
    return () if number is None else (number,)


def _resolved(schema: Any, root: Schema) -> tuple[Schema, bool]:
    """A schema without references and without the null that it may be instead."""
    nullable = False
    for _ in range(20):
        if not isinstance(schema, Mapping):
            return {}, nullable
        found = cast("Schema", schema)
        if "$ref" in found:
            schema = _definition(found["$ref"], root)
            if schema is not None:
                schema = {**schema, **{k: v for k, v in found.items() if k != "$ref"}}
            continue
        others = _besides_null(found)
        if others is None:
            return found, nullable
        nullable, schema = True, others
    return {}, nullable


def _besides_null(schema: Schema) -> Schema | None:
    """What a schema wants where it takes null as well; None where it does not."""
    kinds = schema.get("type")
    if isinstance(kinds, list) and "null" in kinds and len(cast("list[Any]", kinds)) == 2:
        (other,) = [kind for kind in cast("list[Any]", kinds) if kind != "null"]
        if "enum" not in schema and "const" not in schema:
            return {**schema, "type": other}
    either = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(either, list) and len(cast("list[Any]", either)) == 2:
        rest = [one for one in cast("list[Any]", either) if one != {"type": "null"}]
        if len(rest) == 1 and isinstance(rest[0], Mapping):
            about = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
            return {**about, **cast("Schema", rest[0])}
    return None


def _definition(reference: Any, root: Schema) -> Schema | None:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        found = cast("Schema", found).get(name) if isinstance(found, Mapping) else None
    return cast("Schema", found) if isinstance(found, Mapping) else None


def _kind_name(schema: Schema, root: Schema, depth: int) -> tuple[str, str]:
    if any(word in schema for word in ("anyOf", "oneOf", "allOf", "not", "if", "$ref")):
        return "json", ""
    if "const" in schema or _is_choice(schema):
        return "choice", ""
    match schema.get("type"):
        case "string":
            return "text", ""
        case "integer" | "number" | "boolean" as name:
            return name, ""
        case "array":
            return _list_kind(schema, root)
        case "object" if depth < MAX_DEPTH and _has_fields(schema):
            return "object", ""
        case _:
            return "json", ""


def _is_choice(schema: Schema) -> bool:
    return isinstance(schema.get("enum"), list) and bool(schema["enum"])


def _list_kind(schema: Schema, root: Schema) -> tuple[str, str]:
    items, nullable = _resolved(schema.get("items"), root)
    if nullable or "prefixItems" in schema:
        return "json", ""
    if _is_choice(items) and len(items["enum"]) <= MAX_FIELDS:
        return ("checks", "") if items is schema.get("items") else ("json", "")
    name, _ = ("json", "") if items.get("type") == "array" else _kind_name(items, root, MAX_DEPTH)
    return ("lines", name) if name in ("text", "integer", "number", "boolean") else ("json", "")


def _has_fields(schema: Schema) -> bool:
    """An object with some properties, and none that has no name yet."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or "patternProperties" in schema:
        return False
    extra = isinstance(schema.get("additionalProperties"), Mapping)
    return 0 < len(cast("Schema", properties)) <= MAX_FIELDS and not extra
