"""Whatever is sent to the site: it answers, and never that it has broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.web import TokenAccess, create_app
from support.serving import serving
from support.web import OPERATOR, VIEWER, Shop, fill

ANSWERED = {*range(200, 500), 503}

ODD_JSON = (
    b"\xff\xfe",
    b"{",
    b'{"a":NaN}',
    b'{"agent":"echo","prompt":"\\u0000","key":"a\\u0000b"}',
    b'{"agent":"echo","prompt":"\\ud800","key":"\\ud800"}',
    b'{"agent":"echo","prompt":"x","meta":{"a":"\\ud800\\u0000"}}',
    b'{"agent":"echo","prompt":"x","meta":{"a":1e999}}',
    b'{"agent":"echo","prompt":"x","meta":{"a":' + b"9" * 5000 + b"}}",
    b'{"agent":"echo","prompt":"x","delay":1e300}',
    b'{"agent":"echo","prompt":"x","scheduled_at":"9999-12-31T23:59:59-14:00"}',
    b'{"agent":"echo","prompt":"x","scheduled_at":"0001-01-01T00:00:00+14:00"}',
    b'{"agent":"echo","prompt":"x","priority":99999999999999999999}',
    b'{"agent":"echo","prompt":"x","max_attempts":99999999999999999999}',
    b'{"agent":"echo","prompt":"x","max_attempts":9999999999}',
    b'{"agent":"echo","prompt":"x","tags":["' + b"t" * 10_000 + b'"]}',
    b'{"agent":"echo","prompt":"x","key":"' + b"k" * 10_000 + b'"}',
    b'{"agent":"echo","prompt":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"agent":"echo","prompt":"x","budget":{"usd":1e999}}',
    b'{"agent":"echo","prompt":"x","budget":{"usd":"' + b"9" * 5000 + b'"}}',
    b'{"value":"\\u0000\\ud800"}',
    b'{"payload":"\\u0000\\ud800","name":"\\u0000"}',
    b'{"note":"\\u0000\\ud800"}',
)
PATHS = (
    ("POST", "/api/runs"),
    ("POST", "/api/runs/waiting/calls/1.0/approve"),
    ("POST", "/api/runs/asking/calls/1.0/answer"),
    ("POST", "/api/runs/waiting/signals"),
    ("POST", "/api/runs/waiting/cancel"),
    ("POST", "/api/budgets"),
)
QUERIES = (
    "limit=99999999999999999999&before=99999999999999999999",
    "before=-99999999999999999999",
    "after=%00&cursor=%ff",
    "after=9999-12-31T23:59:59-14:00|99999999999999999999|99999999999999999999.0",
    "tag=%00&agent=%ED%A0%80&queue=%ff",
    "since=0001-01-01T00:00:00%2B14:00&until=9999-12-31T23:59:59-14:00",
    "state=nothing&key=%25%5F%00",
    "window=1e999&buckets=99999999999",
)
PAGES = ("/", "/runs", "/inbox", "/queues", "/api/runs", "/api/inbox", "/api/statistics")
PAGES += ("/api/runs/said", "/api/runs/said/events", "/runs/said", "/api/runs/%00", "/runs/%ff")
PAGES += ("/api/runs/" + "k" * 5000, "/api/runs/said/calls/9999999999999999999999.0")


@pytest.fixture
def shop(app_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("DESK", str(tmp_path))
    monkeypatch.setenv("DURABLY_URL", app_url)
    asyncio.run(fill(tmp_path))
    from apps.desk import make

    with serving(create_app(make(), access=TokenAccess(OPERATOR, VIEWER))) as url:
        yield Shop(url, app_url, tmp_path)


def check(answer: httpx.Response) -> None:
    said = f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code in ANSWERED, said


def test_nothing_that_is_sent_breaks_the_site(shop: Shop) -> None:
    with shop.client() as client:
        for body in ODD_JSON:
            for method, path in PATHS[:1] if body.startswith(b'{"agent"') else PATHS:
                for kind in ("application/json", "text/plain; charset=x"):
                    check(
                        client.request(method, path, content=body, headers={"Content-Type": kind})
                    )
        for page in PAGES:
            check(client.get(page))
        for query in QUERIES:
            for page in ("/runs", "/inbox", "/api/runs", "/api/inbox", "/api/statistics", "/"):
                check(client.get(f"{page}?{query}"))
        for page in PAGES[:7]:  # Whatever was enqueued above is shown.
            check(client.get(page))

        @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(_bodies(), st.sampled_from(PATHS))
        def send(body: bytes, where: tuple[str, str]) -> None:
            check(
                client.request(*where, content=body, headers={"Content-Type": "application/json"})
            )

        send()
        check(client.get("/runs"))
        check(client.get("/api/runs"))


def _bodies() -> st.SearchStrategy[bytes]:
    text = st.text(st.characters(codec=None), max_size=20)
    value: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=6,
    )
    fields = ("key", "queue", "priority", "max_attempts", "delay", "args", "tags", "meta", "thread")
    run = st.fixed_dictionaries(
        {"agent": st.just("echo"), "prompt": text}, optional=dict.fromkeys(fields, value)
    )
    return (run | value).map(lambda v: json.dumps(v).encode()) | st.binary(max_size=40)
