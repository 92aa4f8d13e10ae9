"""Histories that the original recipe stored are read: every part, and every mistake says where."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from durably.agents import history
from durably.errors import HistoryError

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def request(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"__type__": "request", "parts": list(parts), **fields}


def response(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"__type__": "response", "parts": list(parts), **fields}


def part(kind: str, /, **fields: Any) -> dict[str, Any]:
    return {"__type__": kind, **fields}


def read(*messages: Any) -> list[Any]:
    return history.from_json(json.dumps(messages))


def read_part(message: Any) -> Any:
    return read(message)[0].parts[0]


CALL = part("tool_call", tool_name="refund", args={"order": 42}, tool_call_id="c1", kind="function")


def test_whole_conversation_is_read() -> None:
    asked, answered, returned = read(
        request(
            part("system", content="Be brief.", dynamic_ref=None),
            part("user", content="Refund #42", timestamp="2026-05-01T12:00:00Z"),
            instructions="Help.",
            run_id="r1",
            conversation_id=None,
            timestamp="2026-05-01T12:00:00.5Z",
        ),
        response(
            part("thinking", content="hm", signature="sig"),
            part("text", content="One moment."),
            CALL,
            usage={"input_tokens": 10, "output_tokens": 3, "details": {"cached_tokens": 4}},
            model_name="gpt-4o",
            finish_reason="tool_call",
            timestamp="2026-05-01T14:00:01+02:00",
        ),
        request(part("tool_return", tool_name="refund", content={"ok": True}, tool_call_id="c1")),
    )
    assert isinstance(asked, ModelRequest) and isinstance(answered, ModelResponse)
    system, user = asked.parts
    assert isinstance(system, SystemPromptPart) and system.content == "Be brief."
    assert user == UserPromptPart("Refund #42", timestamp=NOON)
    assert (asked.instructions, asked.run_id) == ("Help.", "r1")
    assert asked.timestamp == NOON.replace(microsecond=500_000)
    assert list(answered.parts) == [
        ThinkingPart("hm", signature="sig"),
        TextPart("One moment."),
        ToolCallPart("refund", {"order": 42}, tool_call_id="c1"),
    ]
    assert (answered.usage.input_tokens, answered.usage.output_tokens) == (10, 3)
    assert answered.usage.details == {"cached_tokens": 4}
    assert (answered.model_name, answered.finish_reason) == ("gpt-4o", "tool_call")
    assert answered.timestamp == NOON.replace(second=1)
    (result,) = returned.parts
    assert isinstance(result, ToolReturnPart)
    assert (result.tool_name, result.content, result.tool_call_id) == ("refund", {"ok": True}, "c1")


def test_what_was_read_is_written_in_the_current_format() -> None:
    written = history.to_json(read(request(part("user", content="hi")), response(CALL)))
    assert "__type__" not in written
    assert history.to_json(history.from_json(written)) == written


def test_recipes_own_two_message_example_is_read() -> None:
    # As it writes them: absent atoms as the string "nil", absent fields as null.
    nothing = {"instructions": None, "run_id": None, "conversation_id": None}
    asked, answered = read(
        request(part("user", content="hello"), **nothing),
        response(part("text", content="hi back"), usage=None, model_name="m", finish_reason="nil"),
    )
    assert asked.parts[0].content == "hello"
    assert (answered.text, answered.model_name, answered.finish_reason) == ("hi back", "m", None)


@pytest.mark.parametrize("args", [{"a": [1]}, '{"a": [1]}', '{"a": ', None])
def test_arguments_stay_an_object_a_string_or_nothing(args: Any) -> None:
    call = read_part(response(part("tool_call", tool_name="t", args=args, tool_call_id="c")))
    assert call.args == args


def test_missing_call_id_is_the_tools_name_on_both_sides() -> None:
    call = read_part(response(part("tool_call", tool_name="t", args=None, tool_call_id=None)))
    result = read_part(request(part("tool_return", tool_name="t", content=1, tool_call_id=None)))
    assert call.tool_call_id == result.tool_call_id == "t"


@pytest.mark.parametrize("content", ["text", 3, True, [1], {"a": None}, None])
def test_tool_result_is_any_json(content: Any) -> None:
    message = request(part("tool_return", tool_name="t", content=content, tool_call_id="c"))
    assert read_part(message).content == content


def test_retry_is_what_the_installed_version_makes_of_it() -> None:
    bound = read_part(request(part("retry", content="no", tool_name="t", tool_call_id="c")))
    assert (bound.tool_name, bound.tool_call_id, bound.content) == ("t", "c", "no")
    assert bound.part_kind in ("retry-prompt", "tool-return")
    free = read_part(request(part("retry", content=[{"error": "x"}], tool_name=None)))
    assert json.loads(free.content) == [{"error": "x"}]
    assert free.part_kind in ("retry-prompt", "retry-feedback")


def test_content_that_is_a_list_is_the_json_that_the_model_saw() -> None:
    assert json.loads(read_part(request(part("user", content=[{"type": "text"}]))).content) == [
        {"type": "text"}
    ]


def test_part_without_a_time_has_its_messages() -> None:
    user = read_part(request(part("user", content="x"), timestamp="2026-05-01T12:00:00"))
    assert user.timestamp == NOON


@pytest.mark.parametrize(
    ("reason", "known", "details"),
    [
        ("stop", "stop", None),
        ("tool_calls", "tool_call", None),
        ("bored", None, {"finish_reason": "bored"}),
        (None, None, None),
    ],
)
def test_finish_reason_is_kept(reason: Any, known: Any, details: Any) -> None:
    (message,) = read(response(part("text", content="x"), finish_reason=reason))
    assert (message.finish_reason, message.provider_details) == (known, details)


@pytest.mark.parametrize(
    ("messages", "path", "says"),
    [
        ([part("reply", parts=[])], "[0]", "'reply'; known: request, response"),
        ([{"__type__": "request"}], "[0].parts", "a list, not null"),
        ([request(), {"kind": "request", "parts": []}], "[1]", "in one format"),
        ([{"kind": "request", "parts": []}, request()], "[0]", "in one format"),
        ([request(), 3], "[1]", "in one format"),
        ([request(3)], "[0].parts[0]", "an object, not a number"),
        ([request({})], "[0].parts[0]", "unknown part __type__ None"),
        ([request(part("text", content="x"))], "[0].parts[0]", "known here: system, user"),
        ([response(part("user", content="x"))], "[0].parts[0]", "known here: text"),
        ([request(part("user"))], "[0].parts[0].content", "missing"),
        ([request(part("user", content=3))], "[0].parts[0].content", "not a number"),
        ([request(part("user", content=None))], "[0].parts[0].content", "not null"),
        ([response(part("text", content=3))], "[0].parts[0].content", "not a number"),
        ([response(part("text"))], "[0].parts[0].content", "missing or null"),
        ([response(part("thinking", content="", signature=3))], "[0].parts[0].signature", "number"),
        ([response(part("tool_call", args={}))], "[0].parts[0].tool_name", "missing"),
        ([response(CALL | {"args": 3})], "[0].parts[0].args", "a JSON string or null"),
        ([response(CALL | {"kind": "magic"})], "[0].parts[0].kind", "'magic' is none of"),
        ([request(part("tool_return", tool_name="t"))], "[0].parts[0].content", "missing"),
        ([request(part("tool_return", content=1))], "[0].parts[0].tool_name", "missing"),
        ([request(part("user", content="x", timestamp="now"))], "[0].parts[0].timestamp", "ISO"),
        ([request(timestamp=3)], "[0].timestamp", "a string or null"),
        ([response(usage=3)], "[0].usage", "an object, not a number"),
        ([response(usage={"input_tokens": -1})], "[0].usage.input_tokens", "a count"),
        ([response(usage={"details": {"a": "b"}})], "[0].usage.details.a", "a count"),
        ([response(usage={"details": 3})], "[0].usage.details", "an object"),
        ([response(usage={"cost": 3})], "[0].usage.cost", "unknown field 'cost'"),
        ([request(part("user", content="x", mood="good"))], "[0].parts[0].mood", "'mood'"),
        ([request(), response(colour="red")], "[1].colour", "unknown field 'colour'"),
    ],
)
def test_mistake_says_where(messages: list[Any], path: str, says: str) -> None:
    with pytest.raises(HistoryError) as caught:
        read(*messages)
    assert caught.value.path == path
    assert says in str(caught.value)
