"""What a tool returned, an agent answered and a person asked comes back from the ledger."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import uuid
from collections.abc import Awaitable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai import (
    BinaryImage,
    DeferredToolRequests,
    NativeOutput,
    PromptedOutput,
    RunContext,
    StructuredDict,
    TextOutput,
    ToolOutput,
)
from pydantic_ai.messages import (
    BinaryContent,
    CachePoint,
    DocumentUrl,
    ImageUrl,
    ModelRequest,
    TextContent,
    ToolReturn,
    ToolReturnPart,
    UploadedFile,
)

from durably.agents import codec, history
from durably.errors import HistoryError, ResultNotSerializable

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
# An older pydantic-ai reads it as a BinaryContent that is no BinaryImage.
PNG = BinaryContent.narrow_type(BinaryContent(b"\x89\xff", media_type="image/png", identifier="p"))
PDF = BinaryContent(b"\xff\x00", media_type="application/pdf", identifier="d")
URL = ImageUrl("https://example.com/a.png", media_type="image/png", identifier="u")
FILES: list[Any] = [
    PDF,
    URL,
    DocumentUrl("https://example.com/a.pdf", media_type="application/pdf"),
    UploadedFile("file-1", "openai", media_type="text/csv"),
]
TOOLS = any(field.name == "tools" for field in dataclasses.fields(ToolReturn))


def again(result: object) -> Any:
    return codec.decode_result(codec.encode_result("t", result))


# --- results


@given(JSON)
def test_json_result_comes_back_as_it_was(value: Any) -> None:
    assert again(value) == value
    # The text is stable: a result recorded twice is recorded the same.
    assert codec.encode_result("t", again(value)) == codec.encode_result("t", value)


def test_result_is_readable_with_sql() -> None:
    assert codec.encode_result("t", {"ok": True}) == '{"return_value":{"ok":true}}' or TOOLS
    assert json.loads(codec.encode_result("t", {"ok": "é"}))["return_value"] == {"ok": "é"}
    assert codec.encode_result("t", None) == '{"return_value":null}'
    assert codec.encode_result("t", "é") == '{"return_value":"é"}'


def name_of_case(value: Any) -> str:
    """The same in every process: without the addresses of objects."""
    return re.sub(r" at 0x[0-9a-f]*", "", str(value))[:40]


@pytest.mark.parametrize("file", FILES, ids=lambda f: type(f).__name__)
def test_file_is_still_a_file(file: Any) -> None:
    for value in (file, [file, "text"], {"deep": [file]}):
        assert again(value) == value


def test_image_bytes_survive() -> None:
    found = again([PNG])[0]
    assert isinstance(found, BinaryContent)
    assert (found.data, found.media_type, found.identifier) == (PNG.data, "image/png", "p")


def test_tool_return_comes_back_whole() -> None:
    before = ToolReturn(
        {"order": 42}, content=["look", PDF, URL, CachePoint()], metadata={"took": 1.5}
    )
    if TOOLS:
        before.tools = ["refund"]
    assert again(before) == before


def test_tool_return_stays_one_even_when_it_says_no_more_than_its_value() -> None:
    assert again(ToolReturn("x")) == ToolReturn("x")
    assert again("x") == "x"


def test_object_that_looks_like_a_tool_return_or_a_file_stays_an_object() -> None:
    for value in (
        {"kind": "tool-return", "return_value": 1},
        {"return_value": 1},
        {"kind": "image-url", "url": "https://e.com/a.png", "media_type": "image/png", "n": 1},
    ):
        assert again(value) == value


class Colour(enum.Enum):
    RED = "red"


class Order(pydantic.BaseModel):
    number: int
    paid: datetime | None = None


@dataclasses.dataclass
class Line:
    order: Order
    price: Decimal


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Order(number=42), {"number": 42, "paid": None}),
        (
            Line(Order(number=1), Decimal("1.50")),
            {"order": {"number": 1, "paid": None}, "price": "1.50"},
        ),
        ([Order(number=1)], [{"number": 1, "paid": None}]),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({1: "a"}, {"1": "a"}),
        (Colour.RED, "red"),
        (datetime(2026, 5, 1, tzinfo=UTC), "2026-05-01T00:00:00Z"),
        (date(2026, 5, 1), "2026-05-01"),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (Path("/tmp/x"), "/tmp/x"),
        (b"\xff\x00", "_wA="),
        ([float("nan"), float("inf"), {"x": float("-inf")}], [None, None, {"x": None}]),
    ],
)
def test_value_without_a_json_type_is_what_the_model_was_shown(value: Any, expected: Any) -> None:
    assert again(value) == expected
    # On a resume the model is shown what it was shown before.
    shown = ToolReturnPart("t", value).model_response_object()
    assert ToolReturnPart("t", again(value)).model_response_object() == shown


class Opaque:
    pass


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def looped() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (Opaque(), r"a [\w.]*test_codec\.Opaque"),
        ({"deep": [Opaque()]}, "Opaque"),
        (ToolReturn("x", metadata={"o": Opaque()}), "Opaque"),
        (ToolReturn("x", content=[Opaque()]), "Opaque"),  # type: ignore[list-item]
        (ToolReturn("x", content=[{"not": "content"}]), "cannot be read again"),  # type: ignore[list-item]
        (ValueError("no"), "a ValueError"),
        (len, "builtin_function"),
        (Opaque, "a type"),
        ((n for n in range(3)), "a generator"),
        (iter([1]), "a list_iterator"),
        (looped(), "contains itself or"),
        (nested(230), "again|deeply"),
        (nested(2000), "deeply"),
        ("\ud800", "not valid Unicode"),
    ],
    ids=lambda v: v if isinstance(v, str) and v.isascii() else "",
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_unwritable_result_is_one_clear_sentence(result: Any, says: str) -> None:
    with pytest.raises(ResultNotSerializable, match=says) as caught:
        codec.encode_result("refund", result)
    text = str(caught.value)
    assert text.startswith("Tool 'refund' returned ")
    assert text.endswith("or a ToolReturn of these instead.")
    assert "\n" not in text


@pytest.mark.parametrize("depth", range(185, 200))
def test_any_recorded_result_can_also_be_read_in_a_message(depth: int) -> None:
    try:
        result = again(nested(depth))
    except ResultNotSerializable:
        return
    message = ModelRequest([ToolReturnPart("t", result)])
    assert history.message_from_json(history.message_to_json(message)) == message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("42", "field 'return_value'"),
        ("{}", "field 'return_value'"),
        ('{"return_value": 1, "kind": "hologram"}', "unknown kind 'hologram'"),
        ('{"return_value": 1, "from_the_future": 2}', "unknown field 'from_the_future'"),
        ('{"return_value": 1, "kind": "tool-return", "content": 5}', "content"),
    ],
)
def test_unreadable_result_is_refused(text: str, says: str) -> None:
    with pytest.raises(HistoryError, match=says):
        codec.decode_result(text)


# --- outputs


class Refund(pydantic.BaseModel):
    order: int
    at: datetime | None = None
    raw: bytes = b"x"
    aliased: int = pydantic.Field(default=1, alias="aliasedIn", serialization_alias="aliasedOut")

    @pydantic.computed_field
    @property
    def twice(self) -> int:
        return self.order * 2


class Refusal(pydantic.BaseModel):
    reason: str


class Approval(pydantic.BaseModel):
    reason: str


class Charge(TypedDict):
    order: int


@dataclasses.dataclass
class Point:
    x: float
    data: bytes = b"\xff"


def to_refund(ctx: RunContext[None], order: int) -> Refund:
    return Refund(order=order)


async def to_refusal(reason: str) -> Refusal:
    return Refusal(reason=reason)


def to_awaitable(reason: str) -> Awaitable[Refusal]:
    raise NotImplementedError


def to_anything(text: str):  # type: ignore[no-untyped-def]
    return text


def to_something_unknown(text: str) -> Missing:  # type: ignore[name-defined]  # noqa: F821
    return text


def split(text: str) -> list[str]:
    return text.split()


class Maker:
    def make(self, order: int) -> Refund:
        return Refund(order=order)

    def __call__(self, order: int) -> Refund:
        return Refund(order=order)


type Alias = Refund | Refusal
type Pair[T] = tuple[T, T]

REFUND = Refund(order=1, at=datetime(2026, 5, 1, tzinfo=UTC))
NO = Refusal(reason="late")
OUTPUTS = [
    (str, "done"),
    (int, 42),
    (bool, True),
    (float, 1.5),
    (type(None), None),
    (Refund, REFUND),
    (Point, Point(1.0)),
    (Charge, {"order": 1}),
    (dict[str, int], {"a": 1}),
    (list[Refund], [REFUND]),
    (tuple[int, Refund], (1, REFUND)),
    (set[int], {1, 2}),
    (datetime, datetime(2026, 5, 1, tzinfo=UTC)),
    (Decimal, Decimal("1.50")),
    (Colour, Colour.RED),
    (Literal["a", "b"], "b"),
    (Annotated[int, pydantic.Field(ge=0)], 3),
    (BinaryImage, BinaryImage(b"\xff", media_type="image/png", identifier="i")),
    (Refund | Refusal, NO),
    (Refund | None, None),
    (Alias, REFUND),
    (Pair[int], (1, 2)),
    ([Refund, Refusal], NO),
    ((Refund, str), "text"),
    ([Refund, Refusal, str], "text"),
    ([int, str], "5"),
    ([bool, int], 1),
    ([Refund, DeferredToolRequests], REFUND),
    (ToolOutput(Refund, name="refund"), REFUND),
    ([ToolOutput(Refund), ToolOutput(Refusal)], NO),
    (NativeOutput([Refund, Refusal]), NO),
    (NativeOutput(Refund), REFUND),
    (PromptedOutput([Refund, Refusal]), REFUND),
    (TextOutput(split), ["a", "b"]),
    (to_refund, REFUND),
    (to_refusal, NO),
    (to_awaitable, NO),
    (ToolOutput(to_refund), REFUND),
    ([to_refund, to_refusal], NO),
    (Maker().make, REFUND),
    (Maker(), REFUND),
    (StructuredDict({"type": "object", "properties": {}}), {"x": 1}),
]


@pytest.mark.parametrize(("output_type", "output"), OUTPUTS, ids=name_of_case)
def test_output_comes_back_typed(output_type: Any, output: Any) -> None:
    text = codec.encode_output("support", output)
    found = codec.decode_output(text, output_type)
    assert found == output
    assert type(found) is type(output)


@pytest.mark.parametrize(
    ("output_type", "output"),
    [
        (to_anything, {"x": 1}),
        (to_something_unknown, {"x": 1}),
        (TextOutput(to_anything), "x"),
        ([to_anything, Refusal], {"reason": "x"}),
        (Any, {"x": 1}),
        (object, {"x": 1}),
        (Opaque, {"x": 1}),
        (Refund, {"other": 1}),
        (DeferredToolRequests, {"x": 1}),
        ("a string", {"x": 1}),
        (3, {"x": 1}),
    ],
    ids=name_of_case,
)
def test_output_of_unclear_type_comes_back_as_plain_json(output_type: Any, output: Any) -> None:
    assert codec.decode_output(codec.encode_output("support", output), output_type) == output


def test_one_of_two_equal_shapes_is_never_guessed() -> None:
    text = codec.encode_output("support", Refusal(reason="late"))
    assert codec.decode_output(text, [Approval, Refusal]) == {"reason": "late"}
    assert codec.decode_output(text, [Refusal, Refusal]) == Refusal(reason="late")


def test_output_is_plain_json_by_field_names() -> None:
    assert json.loads(codec.encode_output("support", REFUND)) == {
        "order": 1,
        "at": "2026-05-01T00:00:00Z",
        "raw": "x",
        "aliased": 1,
    }
    assert codec.encode_output("support", "é") == '"é"'
    assert codec.encode_output("support", float("nan")) == "null"


@given(JSON)
def test_plain_output_comes_back_as_it_was(value: Any) -> None:
    assert codec.decode_output(codec.encode_output("support", value), Any) == value


def test_unwritable_output_names_the_agent_and_the_type() -> None:
    with pytest.raises(ResultNotSerializable, match=r"agent 'support' holds a .*Opaque"):
        codec.encode_output("support", {"x": Opaque()})


def test_unreadable_output_is_refused() -> None:
    with pytest.raises(HistoryError, match="not JSON"):
        codec.decode_output("{", str)


# --- prompts


@given(st.text())
def test_text_prompt_comes_back_as_it_was(prompt: str) -> None:
    text = codec.encode_prompt(prompt)
    assert json.loads(text) == prompt
    assert codec.decode_prompt(text) == prompt


def test_prompt_with_files_comes_back_as_it_was() -> None:
    prompt = ["look", *FILES, TextContent("x", metadata={"a": 1}), CachePoint(ttl="1h")]
    text = codec.encode_prompt(prompt)
    assert codec.decode_prompt(text) == prompt
    assert codec.encode_prompt(tuple(prompt)) == text
    assert codec.encode_prompt([]) == "[]"
    assert codec.decode_prompt("[]") == []


def test_large_prompt_comes_back_as_it_was() -> None:
    prompt = "é" * 5_000_000
    assert codec.decode_prompt(codec.encode_prompt(prompt)) == prompt


@pytest.mark.parametrize("prompt", [3, {"a": 1}, b"x", [Opaque()], [3], None, "\ud800"])
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_prompt_that_is_none_is_refused(prompt: Any) -> None:
    with pytest.raises(ResultNotSerializable, match="The prompt"):
        codec.encode_prompt(prompt)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ""),
        ("3", ""),
        ('["x", {"kind": "smell"}]', "content[1]"),
        ('[{"kind": "image-url"}]', "content[0].url"),
        ('[{"kind": "cache-point", "from_the_future": 1}]', "content[0].from_the_future"),
    ],
)
def test_unreadable_prompt_says_where(text: str, path: str) -> None:
    with pytest.raises(HistoryError) as caught:
        codec.decode_prompt(text)
    assert caught.value.path == path
