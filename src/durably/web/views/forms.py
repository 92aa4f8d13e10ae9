"""Forms from JSON schemas, with what is in them already.

Pure. Owns the way there; the way back, which it takes to see that fields show a value as it is, is
`filled`'s, and what a field can be `fields`'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

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
from durably.web.views.filled import FormReader, schema_of, texts_of


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
    root = schema_of(schema)
    builder = _Builder(root, errors or {}, posted, defaults=isinstance(value, Missing))
    return builder.field(root, value, prefix, label, required=True, certain=True, depth=0)


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
            reader = FormReader(self.root, posted_by(field))
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
            again = texts_of(self.posted, f"json:{name}" if shown == "json" else name)
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
            kept = texts_of(self.posted, f"empty:{name}")
            return kept[0] if kept else None
        has_value = not isinstance(value, Missing)
        if kind.nullable and (has_value or required):
            return "null"
        if required or not has_value:
            return None
        return {"text": '""', "lines": "[]", "checks": "[]", "object": "{}"}.get(kind.name)


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
