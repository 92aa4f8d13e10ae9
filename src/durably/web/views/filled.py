"""JSON values from what people fill in.

Pure. Owns the way back from a form of `forms` to a value of its schema.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from durably import replies
from durably.web.views.fields import MISSING, Kind, Missing, Schema, choices_of, kind_of, place

_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


class FormErrors(ValueError):
    """What is wrong with a form, by the name of the field."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = errors


def value_from_form(schema: Any, form: Mapping[str, Any], prefix: str = "value") -> Any:
    """The JSON value that somebody filled in.

    Args:
        form: names to texts; a list of texts where a name comes more than once.

    Raises:
        FormErrors: it is no value of the schema.
    """
    root = schema_of(schema)
    reader = FormReader(root, form)
    value = reader.value(root, prefix, required=True, certain=True, depth=0)
    if not reader.errors:
        reader.errors |= _check(root, value, prefix, form)
    if reader.errors:
        raise FormErrors(reader.errors)
    return value


class FormReader:
    """What is filled in, field by field.

    Attributes:
        errors: what is wrong, by the name of the field; then the values are none.
    """

    def __init__(self, root: Schema, form: Mapping[str, Any]) -> None:
        self.root = root
        self.form = form
        self.errors: dict[str, str] = {}

    def value(self, schema: Any, name: str, *, required: bool, certain: bool, depth: int) -> Any:
        """The value in a field; `MISSING` if there is none, or an error says why."""
        kind = kind_of(schema, self.root, depth)
        if f"json:{name}" in self.form:
            return self._json(name, required)
        if kind.name == "object":
            return self._object(kind, name, required=required, certain=certain, depth=depth)
        texts = texts_of(self.form, name)
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
            key.startswith(inside) and any(text.strip() for text in texts_of(self.form, key))
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
        text = texts_of(self.form, f"json:{name}")[0]
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
        kept = texts_of(self.form, f"empty:{name}")
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


def schema_of(schema: Any) -> Schema:
    """A schema as far as it is one."""
    return cast("Schema", schema) if isinstance(schema, Mapping) else {}


def texts_of(form: Mapping[str, Any], name: str) -> list[str]:
    """What a form has under a name, as often as it comes."""
    found: Any = form.get(name, [])
    return [str(text) for text in cast("list[Any]", found if isinstance(found, list) else [found])]


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")
