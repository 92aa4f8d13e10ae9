"""What messages hold becomes a page on which nothing of it does anything, whatever it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.lifecycle import AttemptOutcome, EffectState
from durably.records import Attempt, CallPosition, Effect, StoredMessage, Timeline
from durably.records.timeline import Saved, TimelineCall, TimelineStep
from durably.web.pages.rendering import templates
from durably.web.views.axis import BREAK_PX
from durably.web.views.conversation import conversation
from durably.web.views.drafts import making_of
from durably.web.views.masking import masked_message
from durably.web.views.timeline import chart_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)

HOSTILE = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "[x](javascript:alert(1)) <javascript:alert(1)>",
        "[x](data:text/html;base64,PHNjcmlwdD4=) ![y](https://elsewhere.example/p.png)",
        "[x](//elsewhere.example) [y](/do/cancel/k) [z](vbscript:x)",
        "<a href='javascript:alert(1)' onclick=alert(1) style='x'>x</a>",
        "<svg/onload=alert(1)><math><style><!--</style><img title='--&gt;<img src onerror=x>'>",
        "javascript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:image/png;base64,iVBORw0KGgo=",
        "{{ 7 * 7 }}{% raw %}",
        "]]><![CDATA[\x00\u202e\ud800\U000e0041",
        "```\n</code></pre><script>1</script>\n```",
        "[" * 3000,
        "x" * 30_000,
    ]
)

texts = st.one_of(HOSTILE, st.text(max_size=20))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
files = st.fixed_dictionaries(
    {"kind": st.sampled_from(["binary", "image-url", "audio-url", "text-content", "cache-point"])},
    optional={"url": texts, "data": texts, "media_type": texts, "content": values},
)
contents = st.one_of(values, st.lists(st.one_of(files, texts), max_size=3))
KINDS = """text thinking user-prompt system-prompt tool-call builtin-tool-call tool-return
builtin-tool-return retry-prompt retry-feedback file compaction"""
kinds = st.sampled_from(KINDS.split())
parts = st.one_of(
    st.fixed_dictionaries(
        {"part_kind": st.one_of(kinds, values)},
        optional={
            "content": contents,
            "tool_name": values,
            "tool_call_id": st.one_of(st.just("c"), values),
            "args": values,
            "outcome": values,
        },
    ),
    values,
)
bodies = st.one_of(
    st.fixed_dictionaries(
        {"parts": st.one_of(st.lists(parts, max_size=4), values)},
        optional={"instructions": values, "model_name": values, "usage": values},
    ).map(json.dumps),
    values.map(json.dumps),
    texts,
    st.just("[" * 100_000),
)


class Checker(HTMLParser):
    """Notes whatever could do something, and every tag and address."""

    def __init__(self) -> None:
        super().__init__()
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        harmless = {
            "div", "p", "ol", "ul", "li", "a", "span", "details", "summary", "pre", "code", "time",
            "strong", "em", "s", "br", "hr", "blockquote", "h3", "h4", "h5", "h6", "table", "thead",
            "tbody", "tr", "th", "td", "figure", "img", "figcaption", "noscript",
        }  # fmt: skip
        if tag not in harmless:
            self.active.append(tag)
        for name, value in attrs:
            text = value or ""
            if name.startswith(("on", "hx-on")) or name in ("style", "srcdoc", "srcset", "action"):
                self.active.append(f"{tag} {name}")
            if name == "href" and not text.startswith(("/at/", "http://", "https://", "mailto:")):
                self.active.append(f"{tag} {name} {text}")
            if name == "src" and not text.startswith("data:image/png;base64,"):
                self.active.append(f"{tag} {name} {text}")
            if name.startswith("hx-") and not text.startswith(("/at/", "#", "outerHTML")):
                self.active.append(f"{tag} {name} {text}")


def rendered(**shown: Any) -> str:
    def url(name: str, **_: Any) -> str:
        return f"/at/{name}"

    common = {"url": url, "key": "k", "form_token": "", "asked": None, "before": 3, "live": False}
    return templates.get_template("run/conversation.html").render(**common, cursor=0, **shown)


def effect(state: EffectState, result: str | None, args: str, step: str = "") -> Effect:
    return Effect(
        1, CallPosition(1, 0, step), "<b>tool", "c", args, "once", "ask", state, False, 1, "key",
        result, "<i>error", "<u>by", NOW, NOW, None, {}, False, None, None, None,
    )  # fmt: skip


@given(
    st.lists(bodies, max_size=4),
    st.lists(parts, max_size=3),
    st.sampled_from(EffectState),
    st.one_of(st.none(), bodies),
    bodies,
)
def test_nothing_that_a_message_holds_does_anything_on_the_page(
    stored: list[str], drafted: list[Any], state: EffectState, result: str | None, args: str
) -> None:
    messages = [
        masked_message(
            StoredMessage(n, "request" if n % 2 == 0 else "response", n, body, NOW), lambda _, v: v
        )
        for n, body in enumerate(stored)
    ]
    effects = [effect(state, result, args), effect(state, result, args, "<s>step")]
    draft = {"parts": drafted, "running": drafted, "results": drafted}
    making = making_of(draft, messages, lambda _, value: value, hidden=False)
    turns = conversation([*messages, *making.results], effects, running=making.running)
    html = rendered(turns=turns, making=making.turn(1))
    html.encode()  # It can be sent.
    checker = Checker()
    checker.feed(html)
    assert not checker.active
    assert not set("\x00\u202e\U000e0041") & set(html), "what hides or reorders text is seen"


def test_what_is_masked_is_masked_wherever_it_is_shown() -> None:
    body = {
        "parts": [
            {"part_kind": "text", "content": "secret"},
            {"part_kind": "tool-call", "tool_name": "t", "args": '{"a": "secret"}'},
            {"part_kind": "tool-return", "tool_name": "t", "content": {"deep": ["secret"]}},
            {"part_kind": "something-new", "x": "secret"},
        ],
        "instructions": "secret",
    }

    def mask(what: str, value: Any) -> Any:
        return json.loads(json.dumps(value).replace("secret", "•••"))

    message = masked_message(StoredMessage(1, "response", 1, json.dumps(body), NOW), mask)
    draft = {"parts": [*body["parts"], {"part_kind": "tool-call", "args": '{"a": "secr'}]}
    making = making_of(draft, [message], mask, hidden=True)
    html = rendered(turns=conversation([message]), making=making.turn(1))
    assert "secr" not in html and html.count("•••") >= 8


def test_long_wait_is_short_on_the_chart_and_a_crash_is_marked() -> None:
    def at(seconds: float) -> datetime:
        return NOW + timedelta(seconds=seconds)

    def step(seq: int, began: float, took: float, *calls: TimelineCall) -> TimelineStep:
        start, end = at(began), at(began + took)
        return TimelineStep(seq, 1, start, end, "m", 1, 1, None, (), list(calls), False)

    def attempt(number: int, began: float, ended: float, outcome: AttemptOutcome) -> Attempt:
        return Attempt(1, number, "w", at(began), at(ended), outcome, None, None, None)

    days = 3 * 86_400.0
    doubt = TimelineCall("1.0", "pay", "once", EffectState.IN_DOUBT, 1, at(2), None, False)
    timeline = Timeline(
        started_at=NOW,
        ended_at=at(days + 4),
        attempts=[
            attempt(1, 0, 4, AttemptOutcome.LOST),
            attempt(2, days, days + 4, AttemptOutcome.COMPLETED),
        ],
        steps=[step(1, 0, 2, doubt), step(3, days, 4)],
        waits=[],
        saved=Saved(),
    )
    chart = chart_of(timeline, at(days + 10))
    (cut,) = chart.breaks
    assert cut[1] == BREAK_PX and cut[2] == "2 d 23 h"
    lost, done, _, second, pay = chart.bars
    assert done.width == pytest.approx(lost.width) and lost.width > 400, "there is room for both"
    assert (second.x, second.width) == pytest.approx((done.x, done.width))
    assert pay.x + pay.width == pytest.approx(lost.x + lost.width), "it ended with its attempt"
    ((crash, why),) = chart.crashes
    assert crash == pytest.approx(lost.x + lost.width) and "Attempt 1 lost its worker" in why
