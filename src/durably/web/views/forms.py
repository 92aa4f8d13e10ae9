"""Forms from JSON schemas, and JSON values from what people fill in.

Pure. Owns the way there and back; what a field can be is `fields`'.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from durably import replies
from durably.web.views.fields import (
    MISSING,
    Field,
    Kind,
    Missing,
    Schema,
    choices_of,
    chosen_of,
    kind_of,
    line_of,
    place,
    posted_by,
)

_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class FormErrors(ValueError):
    """What is wrong with a form, by the name of the field."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = errors


def form_from_schema(
    schema: Any,
    value: Any = MISSING,
    *,
    prefix: str = "value",
    label: str = "",
    errors: Mapping[str, str] | None = None,
    posted: Mapping[str, Any] | None = None,
) -> Field:
    """The field, or group of fields, for a value of a schema.

    Args:
        value: what is in it at first; `MISSING`: nothing.
        prefix: the name of the whole.
        errors: of `FormErrors`; shown at the fields.
        posted: what somebody had filled in, shown again instead of the value.
    """
    root = _schema(schema)
    builder = _Builder(root, errors or {}, posted, defaults=isinstance(value, Missing))
    return builder.field(root, value, prefix, label, required=True, certain=True, depth=0)


def value_from_form(schema: Any, form: Mapping[str, Any], prefix: str = "value") -> Any:
    """The JSON value that somebody filled in.

    Args:
        form: names to texts; a list of texts where a name comes more than once.

    Raises:
        FormErrors: it is no value of the schema.
    """
    root = _schema(schema)
    reader = _Reader(root, form)
    value = reader.value(root, prefix, required=True, certain=True, depth=0)
    if not reader.errors:
        reader.errors |= _check(root, value, prefix, form)
    if reader.errors:
        raise FormErrors(reader.errors)
    return value


class _Builder:
    def __init__(
        self,
        root: Schema,
        errors: Mapping[str, str],
        posted: Mapping[str, Any] | None,
        *,
        defaults: bool,
    ) -> None:
        self.root = root
        self.errors = errors
        self.posted = posted
        self.defaults = defaults and posted is None

    def field(
        self,
        schema: Any,
        value: Any,
        name: str,
        label: str,
        *,
        required: bool,
        certain: bool,
        depth: int,
    ) -> Field:
        kind = kind_of(schema, self.root, depth)
        place: dict[str, Any] = {"required": required, "certain": certain, "depth": depth}
        if self.posted is not None and f"json:{name}" in self.posted:
            return self._of_kind(_as_json(kind), value, name, label, **place)
        if isinstance(value, Missing) and self.defaults:
            value = kind.schema.get("default", MISSING)
        field = self._of_kind(kind, value, name, label, **place)
        if self.posted is None and not isinstance(value, Missing):
            reader = _Reader(self.root, posted_by(field))
            if not _same(reader.value(schema, name, **place), value) or reader.errors:
                # These fields cannot show it as it is.
                return self._of_kind(_as_json(kind), value, name, label, **place)
        return field

    def _of_kind(
        self,
        kind: Kind,
        value: Any,
        name: str,
        label: str,
        *,
        required: bool,
        certain: bool,
        depth: int,
    ) -> Field:
        title = kind.schema.get("title")
        common: dict[str, Any] = {
            "name": name,
            "label": label or (title if isinstance(title, str) else ""),
            "hint": str(kind.schema.get("description", "")),
            "empty": self._empty(name, kind, value, required),
            "required": required and not kind.nullable,
            "error": self.errors.get(name, ""),
        }
        if kind.name == "object":
            certain = certain and required and not kind.nullable
            fields = self._fields(kind, value, name, certain=certain, depth=depth)
            return Field(kind="object", fields=fields, **common)
        return self._leaf(kind, value, certain=certain and required, **common)

    def _fields(
        self, kind: Kind, value: Any, name: str, *, certain: bool, depth: int
    ) -> tuple[Field, ...]:
        given = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        wanted = kind.schema.get("required", ())
        return tuple(
            self.field(
                part,
                given.get(part_name, MISSING),
                place(name, part_name),
                part_name,
                required=part_name in wanted,
                certain=certain,
                depth=depth + 1,
            )
            for part_name, part in cast("Schema", kind.schema["properties"]).items()
        )

    def _leaf(self, kind: Kind, value: Any, *, certain: bool, **common: Any) -> Field:
        name = common["name"]
        is_check = kind.name == "boolean" and certain and not kind.nullable
        shown = "check" if is_check else kind.name
        options = _options(kind)
        if self.posted is not None:
            again = _texts(self.posted, f"json:{name}" if shown == "json" else name)
            if options or is_check:
                chosen = tuple(int(text) for text in again if text.isdigit())
                return Field(kind=shown, options=options, chosen=chosen, **common)
            return Field(kind=shown, text=again[0] if again else "", **common)
        if isinstance(value, Missing) or (value is None and kind.name != "json"):
            return Field(kind=shown, options=options, **common)
        if kind.name == "boolean":
            chosen = (1,) if value else ((0,) if not is_check else ())
            return Field(kind=shown, options=options, chosen=chosen, **common)
        if options:
            return Field(kind=shown, options=options, chosen=chosen_of(kind, value), **common)
        return Field(kind=shown, text=_text(kind, value), **common)

    def _empty(self, name: str, kind: Kind, value: Any, required: bool) -> str | None:
        """JSON of what an empty field means; None: it is left out, or refused where required."""
        if self.posted is not None:
            kept = _texts(self.posted, f"empty:{name}")
            return kept[0] if kept else None
        has_value = not isinstance(value, Missing)
        if kind.nullable and (has_value or required):
            return "null"
        if required or not has_value:
            return None
        return {"text": '""', "lines": "[]", "checks": "[]", "object": "{}"}.get(kind.name)


class _Reader:
    def __init__(self, root: Schema, form: Mapping[str, Any]) -> None:
        self.root = root
        self.form = form
        self.errors: dict[str, str] = {}

    def value(self, schema: Any, name: str, *, required: bool, certain: bool, depth: int) -> Any:
        kind = kind_of(schema, self.root, depth)
        if f"json:{name}" in self.form:
            return self._json(name, required)
        if kind.name == "object":
            return self._object(kind, name, required=required, certain=certain, depth=depth)
        texts = _texts(self.form, name)
        if kind.name == "boolean" and certain and required and not kind.nullable:
            return bool(texts)
        if kind.name == "checks":
            chosen = [self._choice(kind, name, text) for text in texts]
            return chosen if chosen or required else self._nothing(name)
        text = texts[0].replace("\r\n", "\n") if texts else ""
        if not text.strip() and not (kind.name == "text" and text):
            return self._blank(kind, name, required)
        return self._read(kind, name, text)

    def _object(self, kind: Kind, name: str, *, required: bool, certain: bool, depth: int) -> Any:
        wanted = kind.schema.get("required", ())
        before = dict(self.errors)
        found: dict[str, Any] = {}
        certain = certain and required and not kind.nullable
        for part_name, part in cast("Schema", kind.schema["properties"]).items():
            value = self.value(
                part,
                place(name, part_name),
                required=part_name in wanted,
                certain=certain,
                depth=depth + 1,
            )
            if not isinstance(value, Missing):
                found[part_name] = value
        nothing = not found or all(value == "" for value in found.values())
        if nothing and (not required or kind.nullable) and not self._filled(name):
            # Nothing in it was filled in, so nothing in it is amiss.
            self.errors = before
            return self._nothing(name)
        return found

    def _filled(self, name: str) -> bool:
        """Somebody filled in some field of an object."""
        inside = (f"{name}/", f"json:{name}/")
        return any(
            key.startswith(inside) and any(text.strip() for text in _texts(self.form, key))
            for key in self.form
        ) or any(key.startswith(f"empty:{name}/") for key in self.form)

    def _read(self, kind: Kind, name: str, text: str) -> Any:
        match kind.name:
            case "text":
                return text
            case "integer" | "number":
                return self._number(kind.name, name, text)
            case "boolean":
                return text == "1"
            case "choice":
                return self._choice(kind, name, text)
            case "lines":
                lines = [line.strip() for line in text.split("\n") if line.strip()]
                return [self._line(kind.item, name, line) for line in lines]
            case _:
                return self._parse(name, text)

    def _line(self, item: str, name: str, text: str) -> Any:
        if item == "text":
            return text
        if item == "boolean":
            if text not in ("true", "false"):
                self.errors[name] = f"{text!r} is neither true nor false."
            return text == "true"
        return self._number(item, name, text)

    def _number(self, kind: str, name: str, text: str) -> Any:
        text = text.strip()
        try:
            if _INTEGER.fullmatch(text):
                return int(text)
            if kind == "number" and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
                return float(text)
        except ValueError:
            pass  # Python's limit of digits: no number that anybody means.
        whole = "whole " if kind == "integer" else ""
        self.errors[name] = f"{text[:40]!r} is no {whole}number."
        return MISSING

    def _choice(self, kind: Kind, name: str, text: str) -> Any:
        choices = choices_of(kind)
        if text.isdecimal() and len(text) < 10 and int(text) < len(choices):
            return choices[int(text)]
        self.errors[name] = "This is none of the choices."
        return MISSING

    def _json(self, name: str, required: bool) -> Any:
        text = _texts(self.form, f"json:{name}")[0]
        if text.strip():
            return self._parse(name, text)
        return self._blank(Kind("json", {}), name, required)

    def _parse(self, name: str, text: str) -> Any:
        try:
            return json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            self.errors[name] = f"This is no JSON: {error}."
            return MISSING

    def _blank(self, kind: Kind, name: str, required: bool) -> Any:
        nothing = self._nothing(name)
        if not isinstance(nothing, Missing) or not required:
            return nothing
        if kind.nullable:
            return None
        if kind.name == "text":
            return ""
        if kind.name == "lines":
            return []
        self.errors[name] = "Something has to be here."
        return MISSING

    def _nothing(self, name: str) -> Any:
        """What an empty field means."""
        kept = _texts(self.form, f"empty:{name}")
        if not kept:
            return MISSING
        means: dict[str, Any] = {"null": None, "{}": {}, "[]": []}
        return means.get(kept[0], "")


def _check(root: Schema, value: Any, prefix: str, form: Mapping[str, Any]) -> dict[str, str]:
    """What the schema says against a value, at the nearest field."""
    if isinstance(value, Missing):
        return {prefix: "Something has to be here."}
    errors: dict[str, str] = {}
    for path, message in replies.problems(value, root):
        name = prefix
        for part in path:
            if isinstance(part, int) or f"json:{name}" in form:
                break
            name = place(name, part)
        errors.setdefault(name, message[:300])
    return errors


def _schema(schema: Any) -> Schema:
    return cast("Schema", schema) if isinstance(schema, Mapping) else {}


def _as_json(kind: Kind) -> Kind:
    return Kind("json", kind.schema, nullable=kind.nullable)


def _same(one: Any, other: Any) -> bool:
    """Two JSON values are the same; true and 1, 1 and 1.0 are not."""
    if isinstance(one, Missing) or isinstance(other, Missing):
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _options(kind: Kind) -> tuple[str, ...]:
    if kind.name == "boolean":
        return ("no", "yes")
    if kind.name in ("choice", "checks"):
        return tuple(line_of(choice) for choice in choices_of(kind))
    return ()


def _text(kind: Kind, value: Any) -> str:
    if kind.name == "lines" and isinstance(value, list):
        return "\n".join(line_of(item) for item in cast("list[Any]", value))
    if kind.name == "json":
        return json.dumps(value, indent=2)
    return value if isinstance(value, str) else json.dumps(value)


def _texts(form: Mapping[str, Any], name: str) -> list[str]:
    found: Any = form.get(name, [])
    return [str(text) for text in cast("list[Any]", found if isinstance(found, list) else [found])]


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")
