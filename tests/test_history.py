"""What durably.history promises: nothing in a history changes, nothing is lost without a word."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_ai import messages as pai
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RequestUsage

from durably.agents import history
from durably.errors import HistoryError, ResultNotSerializable
from support.sample import examples

# --- strategies, derived from the types of the installed pydantic-ai

TEXT = st.text(max_size=12)
NAME = st.text("abcdefgh_", min_size=1, max_size=8)
NUMBER = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
TIME = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
# Given explicitly, as pydantic-ai fills it in when it reads them: it is not part of equality.
FILE = {"identifier": NAME, "vendor_metadata": st.none() | st.dictionaries(NAME, JSON, max_size=2)}


def file_urls(cls: type, media_type: str) -> st.SearchStrategy[Any]:
    url = NAME.map(lambda name: f"https://example.com/{name}")
    force = st.sampled_from([False, True, "allow-local"])
    return st.builds(cls, url, media_type=st.just(media_type), force_download=force, **FILE)


BINARY = st.builds(
    BinaryContent,
    st.binary(max_size=20),
    media_type=st.sampled_from(["image/png", "application/pdf", "audio/wav", "text/x-odd"]),
    **FILE,
).map(BinaryContent.narrow_type)

# Older versions read an image in a tool's result as a BinaryContent that is no BinaryImage.
FILE_IN_RESULT = BINARY.filter(lambda file: not file.is_image)

SPECIAL: dict[str, Any] = {
    "ImageUrl": lambda cls: file_urls(cls, "image/png"),
    "AudioUrl": lambda cls: file_urls(cls, "audio/mpeg"),
    "DocumentUrl": lambda cls: file_urls(cls, "application/pdf"),
    "VideoUrl": lambda cls: file_urls(cls, "video/mp4"),
    "BinaryContent": lambda cls: FILE_IN_RESULT,
    "UploadedFile": lambda cls: st.builds(
        cls, NAME, st.just("openai"), media_type=st.just("text/csv"), **FILE
    ),
    "StructuredContent": lambda cls: st.builds(
        cls, JSON, content=TEXT.filter(bool), tag=st.none() | st.just("order")
    ),
    "ContentCitationAnchor": lambda cls: anchors(cls),
    "MarkerCitationAnchor": lambda cls: anchors(cls),
    "DocumentCitationSource": lambda cls: st.builds(cls, document_id=NAME, title=st.none() | TEXT),
    "Citation": lambda cls: st.builds(
        cls, st.lists(of(pai.CitationSource), min_size=1, max_size=2), anchor=of(pai.CitationAnchor)
    ),
    "InstructionId": lambda cls: st.one_of(
        st.builds(cls, st.builds(pai.AgentInstructionSource), name=st.none() | NAME),
        st.builds(cls, st.builds(pai.ToolsetInstructionSource, NAME), name=st.none() | NAME),
    ),
}


def anchors(cls: type) -> st.SearchStrategy[Any]:
    start = st.integers(0, 9)
    return start.flatmap(lambda s: st.builds(cls, start=st.just(s), end=st.integers(s + 1, 20)))


def of(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation whose Python type survives JSON."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, typing.TypeAliasType | typing_extensions.TypeAliasType):
        # A tool's result; the alias is recursive.
        return (
            JSON | FILE_IN_RESULT
            if "ToolReturn" in annotation.__name__
            else of(annotation.__value__)
        )
    if annotation in (Any, object) or isinstance(annotation, typing.TypeVar):
        return JSON
    if origin is typing.Annotated:  # only so annotated does an image come back as a BinaryImage
        return BINARY if args[0] is BinaryContent else of(args[0])
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(of, args))
    if origin is Literal or origin is typing_extensions.Literal:
        return st.sampled_from(args)
    if origin in (list, Sequence):
        return st.lists(of(args[0]), max_size=3)
    if origin in (dict, Mapping):
        return st.dictionaries(NAME, of(args[1]), max_size=2)
    if origin is tuple:
        return st.lists(of(args[0]), max_size=2).map(tuple)
    if typing_extensions.is_typeddict(annotation):
        return of_typed_dict(annotation)
    if dataclasses.is_dataclass(origin):  # with its type argument, such as RetryInfo[…]
        hints = typing.get_type_hints(origin)
        generic = [name for name, hint in hints.items() if isinstance(hint, typing.TypeVar)]
        generic += [n for n, h in hints.items() if isinstance(h, typing_extensions.TypeVar)]
        return of_dataclass(origin, **{name: of(args[0]) for name in generic})
    if dataclasses.is_dataclass(annotation):
        return of_dataclass(annotation)
    return SCALARS[annotation]


SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXT,
    bool: st.booleans(),
    int: st.integers(0, 2**40),
    float: st.floats(0, 1e6),
    bytes: st.binary(max_size=9),
    datetime: TIME,
    timedelta: st.integers(0, 10**9).map(lambda us: timedelta(microseconds=us)),
    Decimal: st.decimals(0, 100, places=4),
    type(None): st.none(),
}


def of_typed_dict(cls: Any) -> st.SearchStrategy[Any]:
    hints = typing_extensions.get_type_hints(cls)
    required = {k: of(v) for k, v in hints.items() if k in cls.__required_keys__}
    optional = {k: of(v) for k, v in hints.items() if k in cls.__optional_keys__}
    # pydantic writes the keys in the order of the declaration.
    return st.fixed_dictionaries(required, optional=optional).map(
        lambda found: {name: found[name] for name in hints if name in found}
    )


def of_dataclass(cls: Any, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    if cls.__name__ in SPECIAL:
        return SPECIAL[cls.__name__](cls)
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {
        field.name: of(hints[field.name])
        for field in dataclasses.fields(cls)
        if field.init and field.name != "otel_metadata"  # telemetry's, not written
    }
    return st.builds(cls, **(fields | fixed))


def parts(kind: str, cls: Any) -> st.SearchStrategy[Any]:
    name, fixed = cls.__name__, {}
    if name == "SpeechPart":
        fixed["speaker"] = st.just("user" if kind == "request" else "assistant")
    if name == "CompactionPart" and kind == "request":  # a summary that no provider wrote
        fixed |= dict.fromkeys(("id", "provider_name", "provider_details"), st.none())
    if name in ("ToolReturnPart", "NativeToolReturnPart", "ToolCallPart", "NativeToolCallPart"):
        fixed["tool_kind"] = st.none()  # those with a kind have their own class
    elif any(f.name == "tool_kind" for f in dataclasses.fields(cls)):
        fixed["outcome" if "Return" in name else "provider_name"] = st.just(
            "success" if "Return" in name else None
        )
    return of_dataclass(cls, **fixed)


# On newer versions this part is read as its successors; see its own test.
TRANSLATED = {"RetryPromptPart"} if hasattr(pai, "RetryFeedbackPart") else set()
PARTS = [
    pytest.param(kind, cls, id=f"{kind}-{cls.__name__}")
    for kind, classes in history.part_types().items()
    for cls in classes
    if cls.__name__ not in TRANSLATED
]
MESSAGES = {
    "request": of_dataclass(
        ModelRequest,
        parts=st.lists(
            st.one_of(*(parts(*p.values) for p in PARTS if p.values[0] == "request")), max_size=3
        ),
    ),
    "response": of_dataclass(
        ModelResponse,
        parts=st.lists(
            st.one_of(*(parts(*p.values) for p in PARTS if p.values[0] == "response")), max_size=3
        ),
    ),
}


def message(kind: str, *parts: Any) -> Any:
    return ModelRequest(list(parts)) if kind == "request" else ModelResponse(list(parts))


def conversation() -> list[Any]:
    """Two messages with a bit of everything, for the tables of bad input."""
    return [
        ModelRequest(
            [
                UserPromptPart(["look", ImageUrl("https://example.com/a.png")]),
                ToolReturnPart("refund", {"ok": True}, tool_call_id="c0"),
            ]
        ),
        ModelResponse(
            [TextPart("hello"), ToolCallPart("refund", {"order": 42}, tool_call_id="c1")],
            usage=RequestUsage(input_tokens=3, details={"reasoning": 1}),
        ),
    ]


# --- the round trip


@pytest.mark.parametrize(("kind", "cls"), PARTS)
@settings(max_examples=examples(30))
@given(data=st.data())
def test_every_part_comes_back_as_it_was(kind: str, cls: type, data: st.DataObject) -> None:
    before = [message(kind, data.draw(parts(kind, cls)))]
    written = history.to_json(before)
    after = history.from_json(written)
    assert after == before
    assert [type(p) for p in after[0].parts] == [type(p) for p in before[0].parts]
    assert history.to_json(after) == written


@given(st.lists(st.one_of(*MESSAGES.values()), max_size=4))
def test_every_history_comes_back_as_it_was(before: list[Any]) -> None:
    written = history.to_json(before)
    assert history.from_json(written) == before
    assert history.from_json(written.encode()) == before
    assert history.to_json(history.from_json(written)) == written


@given(st.lists(st.one_of(*MESSAGES.values()), max_size=4))
def test_rows_are_the_history(before: list[Any]) -> None:
    rows = [history.message_to_json(m) for m in before]
    assert history.messages_from_rows(rows) == before
    assert [history.message_from_json(row) for row in rows] == before
    assert history.to_json(history.messages_from_rows(rows)) == history.to_json(before)


@given(st.one_of(*MESSAGES.values()))
def test_row_is_what_pydantic_ai_writes_without_defaults(message: Any) -> None:
    whole = json.loads(
        pai.ModelMessagesTypeAdapter.dump_json([message], by_alias=history.BY_ALIAS)
    )[0]
    row = json.loads(history.message_to_json(message))
    for said, all_said in zip(row.pop("parts"), whole.pop("parts"), strict=True):
        check_unsaid(said, all_said)
    check_unsaid(row.pop("usage", {}), whole.pop("usage", {}))
    check_unsaid(row, whole)


def check_unsaid(row: dict[str, Any], whole: dict[str, Any]) -> None:
    """Of these fields some are left out, none that says what this is; all else is as it was."""
    assert row == {name: whole[name] for name in row}
    assert not {"kind", "part_kind"} & (whole.keys() - row.keys())


def test_row_says_what_is_null_in_arguments_and_results() -> None:
    before: list[Any] = [
        ModelResponse([ToolCallPart("look", {"at": None, "by": {"whom": None, "times": 0}})]),
        ModelRequest(
            [ToolReturnPart("look", {"found": None, "times": 0}, metadata={"seen": None})],
            metadata={"of": None},
        ),
    ]
    call, told = (json.loads(history.message_to_json(each)) for each in before)
    assert call["parts"][0]["args"] == {"at": None, "by": {"whom": None, "times": 0}}
    assert told["parts"][0]["content"] == {"found": None, "times": 0}
    assert told["parts"][0]["metadata"] == {"seen": None} and told["metadata"] == {"of": None}
    assert call.keys() == {"parts", "usage", "timestamp", "kind"} and call["usage"] == {}


def test_response_is_serialised_once() -> None:
    written: list[object] = []

    class Part(pydantic.BaseModel):
        @pydantic.model_serializer
        def write(self) -> str:
            written.append(self)
            return "part"

    call = ToolCallPart("look", {"at": Part()})
    assert '"at":"part"' in history.message_to_json(ModelResponse([call]))
    assert len(written) == 1


def test_json_is_compact_and_valid() -> None:
    written = history.to_json(conversation())
    assert "\n" not in written and '": ' not in written
    message = ModelRequest([ToolReturnPart("t", {"x": float("nan"), "y": float("inf")})])
    content = json.loads(history.to_json([message]))[0]["parts"][0]["content"]
    assert content == {"x": None, "y": None}


@given(st.binary(max_size=64))
def test_bytes_survive_as_base64(data: bytes) -> None:
    before = [ModelRequest([UserPromptPart([BinaryContent(data, media_type="text/x-odd")])])]
    assert history.from_json(history.to_json(before))[0].parts[0].content[0].data == data


@pytest.mark.parametrize("kind", ["image-url", "binary", "uploaded-file", "document-url"])
def test_object_that_looks_like_a_file_stays_the_object_that_a_tool_returned(kind: str) -> None:
    result = {"kind": kind, "url": "https://example.com/a.png", "media_type": "image/png", "n": 1}
    result |= {"data": "aGk=", "file_id": "f", "provider_name": "openai"}
    written = history.to_json([ModelRequest([ToolReturnPart("t", {"found": [result]})])])
    read = history.from_json(written)
    assert read[0].parts[0].content == {"found": [result]}
    assert history.to_json(read) == written


def test_file_in_a_tool_result_stays_a_file() -> None:
    file = BinaryContent.narrow_type(BinaryContent(b"\xff\x00", media_type="image/png"))
    url = ImageUrl("https://example.com/a.png", media_type="image/png")
    before = [ModelRequest([ToolReturnPart("t", ["seen", {"file": file}, url])])]
    written = history.to_json(before)
    seen, found, link = history.from_json(written)[0].parts[0].content
    assert (seen, link) == ("seen", url)
    assert isinstance(found["file"], BinaryContent)
    assert (found["file"].data, found["file"].media_type) == (b"\xff\x00", "image/png")
    assert history.to_json(history.from_json(written)) == written


def test_tool_result_is_stored_as_the_model_sees_it() -> None:
    class Order(pydantic.BaseModel):
        order_id: int = pydantic.Field(serialization_alias="orderId")

    part = ToolReturnPart("find", Order(order_id=42), tool_call_id="c")
    read = history.from_json(history.to_json([ModelRequest([part])]))[0].parts[0]
    assert read.model_response_str() == part.model_response_str()


def test_foreign_whitespace_and_key_order_are_read_too() -> None:
    before = conversation()
    pretty = json.dumps(json.loads(history.to_json(before)), indent=2, sort_keys=True)
    assert history.from_json(pretty) == before


def test_retry_prompts_of_old_histories_are_read() -> None:
    raw = [{"kind": "request", "parts": [{"part_kind": "retry-prompt", "content": "again"}]}]
    part = history.from_json(json.dumps(raw))[0].parts[0]
    assert "again" in str(part.content)
    raw[0]["parts"][0] |= {"tool_name": "refund", "tool_call_id": "c"}
    part = history.from_json(json.dumps(raw))[0].parts[0]
    assert (part.tool_name, part.tool_call_id, part.content) == ("refund", "c", "again")


def test_empty_history_is_a_history() -> None:
    assert history.from_json("[]") == []
    assert history.to_json([]) == "[]"
    assert history.messages_from_rows([]) == []


# --- what cannot be written


class Opaque:
    pass


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("where", ["content", "metadata"])
def test_unwritable_tool_result_names_the_tool(where: str) -> None:
    part = ToolReturnPart("refund", "ok")
    setattr(part, where, {"deep": [Opaque()]})
    with pytest.raises(ResultNotSerializable, match=r"'refund' at \[1\].parts\[0\].*Opaque"):
        history.to_json([conversation()[0], ModelRequest([part])])


def test_unwritable_arguments_and_messages_say_where() -> None:
    with pytest.raises(ResultNotSerializable, match=r"arguments of the call to tool 'refund'"):
        history.message_to_json(ModelResponse([ToolCallPart("refund", {"x": Opaque()})]))
    with pytest.raises(ResultNotSerializable, match=r"text part at \[0\].parts\[0\]"):
        history.message_to_json(ModelResponse([TextPart("x", provider_details={"x": Opaque()})]))
    with pytest.raises(ResultNotSerializable, match=r"message of the history holds a .*Opaque"):
        history.message_to_json(ModelRequest([], metadata={"x": Opaque()}))


def test_result_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ResultNotSerializable, match="contains itself"):
        history.to_json([ModelRequest([ToolReturnPart("t", loop)])])


# --- what cannot be read


def refused(data: str | bytes) -> HistoryError:
    with pytest.raises(HistoryError) as caught:
        history.from_json(data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "message", "path"),
    [
        ("", "not JSON: .*line 1, column 1.*truncated", ""),
        ("hello", "not JSON: .*line 1, column 1", ""),
        ('[{"kind": "request",\n "parts": [', "not JSON: .*line 2, column 12.*truncated", ""),
        (b"\xff\xfe", "not UTF-8 text: byte 0", ""),
        ("[NaN]", "NaN is not a JSON value", ""),
        ("[" * 100_000, "nested too deeply", ""),
        ("{}", "a list of messages, not an object", ""),
        ("null", "a list of messages, not null", ""),
        ("[3]", "a message is an object, not a number", "[0]"),
        ("[{}]", "'kind', which says what it is, is missing", "[0]"),
        ('[{"kind": 3}]', "should be a string, not a number", "[0].kind"),
        ('[{"kind": "telepathy"}]', "'telepathy': written by a newer.*request, response", "[0]"),
        ('[{"kind": "request"}]', "the field is missing", "[0].parts"),
        ('[{"kind": "request", "parts": 3}]', "found a number", "[0].parts"),
        ('[{"kind": "request", "parts": [3]}]', "not a number", "[0].parts[0]"),
        ('[{"kind": "request", "parts": [{}]}]', "'part_kind'", "[0].parts[0]"),
    ],
)
def test_malformed_history_says_where(data: str | bytes, message: str, path: str) -> None:
    error = refused(data)
    assert error.path == path
    assert re.search(message, str(error))


EDITS = [
    ((0, "parts", 0, "part_kind"), "hologram", "'hologram': written by a newer", (0, "parts", 0)),
    ((1, "parts", 0, "part_kind"), "user-prompt", "'user-prompt'", (1, "parts", 0)),
    ((1, "parts", 0, "content"), 5, "valid string, found a number", None),
    ((1, "parts", 1, "tool_name"), None, "found null", None),
    ((1, "parts", 1, "args"), 5, "found a number", None),
    ((0, "parts", 0, "timestamp"), "yesterday", "datetime", None),
    (
        (0, "parts", 0, "content", 1, "kind"),
        "smell",
        "'smell'.*newer",
        (0, "parts", 0, "content", 1),
    ),
    ((0, "parts", 0, "content", 1, "url"), 5, "string, found a number", None),
    ((1, "usage", "input_tokens"), "many", "integer", None),
    ((1, "usage", "details", "reasoning"), [], "integer", None),
    ((1, "finish_reason"), "bored", "'stop'", None),
    ((1, "telepathy"), {"strength": 3}, "unknown field 'telepathy'.*newer", None),
    ((1, "parts", 1, "telepathy"), 7, "unknown field 'telepathy'", None),
    ((0, "parts", 0, "content", 1, "telepathy"), 7, "unknown field 'telepathy'", None),
    ((0, "parts", 1, "telepathy"), "x", "unknown field 'telepathy'", None),
]


def path_of(steps: Sequence[str | int]) -> str:
    return "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps)


@pytest.mark.parametrize(("steps", "value", "message", "at"), EDITS)
def test_wrong_or_newer_data_says_where(
    steps: tuple[Any, ...], value: Any, message: str, at: tuple[Any, ...] | None
) -> None:
    raw = json.loads(history.to_json(conversation()))
    here = raw
    for step in steps[:-1]:
        here = here[step]
    here[steps[-1]] = value
    error = refused(json.dumps(raw))
    assert error.path == path_of(at or steps)
    assert re.search(message, str(error))
    # The same, from the ledger's rows.
    rows = [json.dumps(m) for m in raw]
    with pytest.raises(HistoryError) as caught:
        history.messages_from_rows(rows)
    assert caught.value.path == error.path


def test_unknown_kind_names_the_known_ones_without_internal_tags() -> None:
    raw = [{"kind": "request", "parts": [{"part_kind": "hologram"}]}]
    text = str(refused(json.dumps(raw)))
    assert "tool-return" in text and "user-prompt" in text
    assert "legacy" not in text and "tool-search-return" not in text


@pytest.mark.parametrize(("kind", "cls"), PARTS)
@settings(max_examples=examples(30))
@given(data=st.data())
def test_no_part_loses_an_unknown_field_silently(kind: str, cls: type, data: st.DataObject) -> None:
    raw = json.loads(history.to_json([message(kind, data.draw(parts(kind, cls)))]))
    raw[0]["parts"][0]["from_the_future"] = {"x": 1}
    error = refused(json.dumps(raw))
    assert error.path == "[0].parts[0].from_the_future"


def test_old_retry_prompt_loses_no_unknown_field_silently() -> None:
    part = {"part_kind": "retry-prompt", "content": "again", "from_the_future": 1}
    assert refused(json.dumps([{"kind": "request", "parts": [part]}])).path.endswith("future")


@pytest.mark.parametrize("nothing", [None, [], {}, ""])
def test_unknown_field_that_says_nothing_does_not_stop_a_deploy(nothing: Any) -> None:
    before = conversation()
    raw = json.loads(history.to_json(before))
    raw[0]["from_the_future"] = raw[0]["parts"][0]["from_the_future"] = nothing
    assert history.from_json(json.dumps(raw)) == before


@pytest.mark.parametrize(
    ("holder", "old", "new"),
    [
        ("response", "vendor_id", "provider_response_id"),
        ("usage", "request_tokens", "input_tokens"),
    ],
)
def test_former_names_of_fields_are_read(holder: str, old: str, new: str) -> None:
    raw = json.loads(history.to_json(conversation()))
    target = raw[1]["usage"] if holder == "usage" else raw[1]
    del target[new]
    target[old] = 9 if holder == "usage" else "id-9"
    read = history.from_json(json.dumps(raw))[1]
    assert getattr(read.usage if holder == "usage" else read, new) == target[old]


def test_row_says_where_in_its_own_path() -> None:
    with pytest.raises(HistoryError) as caught:
        history.message_from_json('{"kind": "request", "parts": [{}]}', "message 7")
    assert caught.value.path == "message 7.parts[0]"
    with pytest.raises(HistoryError) as caught:
        history.message_from_json('{"kind": "request"', "message 7")
    assert caught.value.path == "message 7"
    with pytest.raises(HistoryError) as caught:
        history.message_from_json('{"kind": "request", "parts": [{}]}')
    assert caught.value.path == "parts[0]"


@given(st.data())
def test_truncated_history_is_refused(data: st.DataObject) -> None:
    whole = history.to_json(conversation())
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert "not JSON" in str(refused(whole[:cut]))


@given(JSON)
def test_any_other_json_is_refused_or_read_but_never_crashes(value: Any) -> None:
    with contextlib.suppress(HistoryError):
        history.from_json(json.dumps(value))
