"""A form for any JSON schema: what it shows is what it gives back, and what is wrong stands at the
field. Read from the page as a browser reads it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.web.pages.rendering import templates
from durably.web.views.filled import FormErrors, value_from_form
from durably.web.views.forms import form_from_schema

SCALARS = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer"},
        {"type": "number"},
        {"type": "boolean"},
        {"enum": ["red", "blue", 1, True, None]},
        {"const": "fixed"},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        {"type": ["boolean", "null"]},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "number"}},
        {"type": "array", "items": {"enum": ["a", "b", "c"]}},
        {"type": "array", "items": {"type": "boolean"}},
        {"$ref": "#/$defs/Odd"},
        {"type": "object"},
        {},
    ]
)
NAMES = st.sampled_from(["a", "b", "a/b", "~", "json:a", "", "<b>", "ü"])


def objects(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def one(properties: dict[str, Any], required: int, nullable: bool) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        schema["required"] = [name for i, name in enumerate(properties) if required >> i & 1]
        return {"anyOf": [schema, {"type": "null"}]} if nullable else schema

    properties = st.dictionaries(NAMES, parts, min_size=1, max_size=4)
    return st.builds(one, properties, st.integers(0, 15), st.booleans())


SCHEMAS = st.recursive(SCALARS, objects, max_leaves=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema, as unruly as it lets them be."""
    if "anyOf" in schema:
        return st.none() | values_of(schema["anyOf"][0])
    if "$ref" in schema:
        return st.sampled_from(["x", "y"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return st.none() | st.booleans()
    match kinds:
        case "string":
            return st.text(st.characters(codec=None)) | st.sampled_from(
                ["", " ", "\n", "a\r\nb", "\nx", "</textarea><script>", "1", "null"]
            )
        case "integer":
            return st.integers() | st.just(10**300)
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False) | st.integers()
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(values_of(schema["items"]), max_size=4)
        case "object" if "properties" in schema:
            parts = {name: values_of(part) for name, part in schema["properties"].items()}
            must = {name: parts[name] for name in schema["required"]}
            may = {name: parts[name] for name in parts if name not in must}
            return st.fixed_dictionaries(must, optional=may)
        case "object":
            return st.dictionaries(NAMES, JSON, max_size=3)
        case _:
            return JSON


class Browser(HTMLParser):
    """What a browser would post for a form that nobody touches."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.posted: dict[str, list[str]] = {}
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self._area: str | None = None
        self._select: str | None = None
        self._first = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self.tags.add(tag)
        if "id" in has:
            self.ids.append(has["id"] or "")
        if tag == "textarea":
            self._area, self._first = has["name"] or "", "\n"
            self.posted.setdefault(self._area, [""])
        if tag == "select":
            self._select = has["name"]
            self.posted.setdefault(self._select or "", [])
        if tag == "option" and ("selected" in has or not self.posted[self._select or ""]):
            self.posted[self._select or ""] = [has["value"] or ""]
        if tag == "input" and (has.get("type") != "checkbox" or "checked" in has):
            value = (has.get("value") or "").replace("\r", "").replace("\n", "")
            self.posted.setdefault(has["name"] or "", []).append(value)

    def handle_data(self, data: str) -> None:
        if self._area is not None:
            text = data.removeprefix(self._first)
            self._first = ""
            self.posted[self._area][0] += text.replace("\r\n", "\n").replace("\r", "\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._area is not None:
            # A browser posts its line breaks like this.
            self.posted[self._area] = [self.posted[self._area][0].replace("\n", "\r\n")]
            self._area = None


def rendered(field: Any) -> Browser:
    macros: Any = templates.get_template("parts/form.html").module
    html = str(macros.field(field))
    # On its way to a browser it is UTF-8.
    return Browser(html.encode("utf-8", "replace").decode())


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_what_a_form_shows_is_what_it_gives_back(data: st.DataObject) -> None:
    schema = data.draw(SCHEMAS)
    value = data.draw(values_of(schema))
    whole = schema | {"$defs": {"Odd": {"enum": ["x", "y"], "description": "an odd one"}}}
    page = rendered(form_from_schema(whole, value, prefix="args"))
    assert not page.tags & {"script", "b"}
    assert len(page.ids) == len(set(page.ids))
    back = value_from_form(whole, page.posted, "args")
    assert json.dumps(back, sort_keys=True) == json.dumps(value, sort_keys=True)


@settings(max_examples=200, deadline=None)
@given(SCHEMAS, st.dictionaries(st.text(max_size=12), st.lists(st.text(), max_size=2), max_size=6))
def test_whatever_is_posted_is_a_value_or_refused(
    schema: dict[str, Any], posted: dict[str, list[str]]
) -> None:
    posted |= {name.replace("a", "value", 1): texts for name, texts in posted.items()}
    try:
        value = value_from_form(schema, posted)
    except FormErrors as error:
        assert error.errors
        rendered(form_from_schema(schema, posted=posted, errors=error.errors))
    else:
        json.dumps(value, allow_nan=False)


ORDER = {
    "type": "object",
    "properties": {
        "amount": {"type": "integer", "minimum": 1},
        "note": {"type": "string", "default": "hello"},
        "express": {"type": "boolean"},
        "to": {
            "type": "object",
            "properties": {"town": {"type": "string"}, "zip": {"type": "string", "minLength": 4}},
            "required": ["town", "zip"],
        },
    },
    "required": ["amount", "express", "to"],
}


def test_what_is_wrong_is_said_at_the_field_and_what_was_typed_stays() -> None:
    posted = {"value/amount": "a lot", "value/note": "so", "value/to/town": "Bonn"}
    with pytest.raises(FormErrors) as refused:
        value_from_form(ORDER, posted)
    assert refused.value.errors == {"value/amount": "'a lot' is no whole number."}
    field = form_from_schema(ORDER, posted=posted, errors=refused.value.errors)
    page = rendered(field)
    assert page.posted["value/amount"] == ["a lot"]
    assert page.posted["value/to/town"] == ["Bonn"]
    (amount,) = [inner for inner in field.fields if inner.label == "amount"]
    assert amount.error and not amount.options

    posted |= {"value/amount": "0", "value/to/zip": "1"}
    with pytest.raises(FormErrors) as refused:
        value_from_form(ORDER, posted)
    assert set(refused.value.errors) == {"value/amount", "value/to/zip"}
    order = {"amount": 7, "express": False, "to": {"town": "Bonn", "zip": "53111"}}
    shown = rendered(form_from_schema(ORDER, order)).posted
    assert not [name for name in shown if name.startswith("json:")], "fields of their own"
    posted |= {"value/amount": "7", "value/to/zip": "53111", "value/express": "1"}
    assert value_from_form(ORDER, posted) == {
        "amount": 7,
        "note": "so",
        "express": True,
        "to": {"town": "Bonn", "zip": "53111"},
    }


def test_a_new_form_has_the_defaults_and_a_bad_schema_asks_for_json() -> None:
    page = rendered(form_from_schema(ORDER))
    assert page.posted["value/note"] == ["hello"]
    for schema in (True, 7, {"type": "tuple"}, {"$ref": "#/nowhere"}, {"type": "object"}):
        assert "json:value" in rendered(form_from_schema(schema)).posted
    with pytest.raises(FormErrors, match="schema"):
        value_from_form({"$ref": "http://127.0.0.1:9/schema"}, {"json:value": "{}"})
    for text in ("{", "NaN", "[" * 100_000):
        with pytest.raises(FormErrors, match="no JSON"):
            value_from_form({}, {"json:value": text})
