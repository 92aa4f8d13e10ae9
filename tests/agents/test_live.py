"""Deltas hold pydantic-ai's own events, merged and bounded; a draft makes parts of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic_ai.messages import (
    AgentStreamEvent,
    BinaryContent,
    FilePart,
    FinalResultEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    OutputToolCallEvent,
    OutputToolResultEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
    ToolReturnPart,
)

from durably import Draft, Event
from durably.agents.live import (
    PIECE_CHARS,
    event_to_json,
    events_from_json,
    events_to_json,
    length_of,
)

CALL = ToolCallPart("look", '{"number": 42}', "call_0")


def start(part: Any, index: int = 0) -> PartStartEvent:
    return PartStartEvent(index=index, part=part)


def more(delta: Any, index: int = 0) -> PartDeltaEvent:
    return PartDeltaEvent(index=index, delta=delta)


EVENTS: list[AgentStreamEvent] = [
    start(ThinkingPart("so")),
    more(ThinkingPartDelta(content_delta=", look")),
    more(ThinkingPartDelta(signature_delta="signed", provider_name="p")),
    PartEndEvent(index=0, part=ThinkingPart("so, look", signature="signed"), next_part_kind="text"),
    start(TextPart("A \x00 \u2028 b"), 1),
    FinalResultEvent(tool_name=None, tool_call_id=None),
    start(ToolCallPart("look", None, "call_0"), 2),
    more(ToolCallPartDelta(args_delta='{"number": ', tool_call_id="call_0"), 2),
    FunctionToolCallEvent(CALL),
    FunctionToolResultEvent(ToolReturnPart("look", {"lamps": [2, None]}, "call_0")),
    FunctionToolResultEvent(
        ToolReturnPart("look", BinaryContent(b"\x00\xff", media_type="application/pdf"), "call_0")
    ),
    OutputToolCallEvent(ToolCallPart("final", {"a": 1}, "call_1")),
    OutputToolResultEvent(ToolReturnPart("final", "done", "call_1")),
]


def stored(event: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(event))


def test_events_come_back_as_they_went() -> None:
    written = [stored(event) for event in events_to_json(EVENTS)]
    assert events_from_json(written) == EVENTS
    assert events_from_json([{"event_kind": "of the future"}, written[0], 3]) == EVENTS[:1]


def test_what_grows_is_one_piece_and_what_says_more_stays_apart() -> None:
    texts = [more(TextPartDelta(word)) for word in ("a ", "b ", "c")]
    args = [more(ToolCallPartDelta(args_delta=a, tool_call_id="c"), 1) for a in ("{", "}")]
    apart = [more(TextPartDelta("d", provider_name="p", provider_details={"x": 1}))]
    merged = events_from_json(events_to_json([*texts, *args, *texts, *apart]))
    assert merged == [
        more(TextPartDelta("a b c")),
        more(ToolCallPartDelta(args_delta="{}", tool_call_id="c"), 1),
        more(TextPartDelta("a b c")),
        *apart,
    ]


def test_what_a_provider_says_with_a_function_is_left_out() -> None:
    odd = more(ThinkingPartDelta(content_delta="hm", provider_details=lambda known: known or {}))
    assert events_from_json([event_to_json(odd)]) == [more(ThinkingPartDelta(content_delta="hm"))]


LONG = "x" * 10_000_000
FILE = BinaryContent(LONG.encode(), media_type="image/png")


@pytest.mark.parametrize(
    "event",
    [
        FunctionToolResultEvent(ToolReturnPart("look", LONG, "call_0")),
        FunctionToolResultEvent(ToolReturnPart("look", [{"page": LONG}, FILE], "call_0")),
        FunctionToolResultEvent(ToolReturnPart("look", "short", "call_0"), content=["see", FILE]),
        FunctionToolCallEvent(ToolCallPart("look", {"page": LONG}, "call_0")),
        PartEndEvent(index=0, part=TextPart(LONG)),
        start(FilePart(FILE)),
    ],
    ids=["text", "JSON", "file beside it", "arguments", "a part's end", "a file"],
)
def test_piece_is_bounded_and_says_that_it_was_shortened(event: AgentStreamEvent) -> None:
    piece = event_to_json(event)
    assert len(json.dumps(piece)) == length_of(piece) < PIECE_CHARS
    assert piece["truncated"] > 10_000_000
    (read,) = events_from_json([stored(piece)])
    assert read.event_kind == event.event_kind


def test_draft_is_what_the_events_make() -> None:
    draft, number = Draft(), 0

    def apply(kind: str, **data: Any) -> bool:
        nonlocal number
        number += 1
        return draft.apply(Event(number, "k", kind, 1, data, datetime.now(UTC)))

    def say(message: int, *events: AgentStreamEvent) -> bool:
        return apply("delta", message=message, events=events_to_json(events))

    assert not say(1, more(TextPartDelta("of a part that nobody saw begin")))
    assert draft.message is None
    assert say(1, *EVENTS[:5])
    assert (draft.message, draft.thinking, draft.text) == (1, "so, look", "A \x00 \u2028 b")
    end = PartEndEvent(index=1, part=TextPart(LONG))
    say(1, end)
    assert draft.text == "A \x00 \u2028 b", "what was shortened is no better"
    assert apply("step", messages=[0, 1])
    assert (draft.message, draft.parts) == (None, [])

    say(2, FunctionToolCallEvent(CALL))
    assert (draft.running, draft.results) == ([CALL], [])
    result = ToolReturnPart("look", "lamps", "call_0")
    say(2, FunctionToolResultEvent(result))
    assert (draft.running, draft.results) == ([], [result])
    say(3, start(TextPart("Half a")))
    assert apply("withdrawn", message=3)
    assert (draft.message, draft.parts, draft.results) == (2, [], [result])
    say(
        3,
        start(TextPart("<think>")),
        start(ThinkingPart("The")),
        more(ThinkingPartDelta(content_delta=" whole")),
    )
    assert (draft.text, draft.thinking) == ("", "The whole"), "a part may be replaced"
    assert apply("withdrawn", message=2)
    assert (draft.message, draft.parts, draft.results, draft.running) == (None, [], [], [])
    assert not apply("effect")
