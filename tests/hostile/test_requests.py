"""Whatever is sent to the site: it answers, and never that it has broken."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably import Durably
from durably.web import OpenAccess, TokenAccess, create_app
from support.sample import examples
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


# --- what may be sent where: read from the site itself, so that nothing new is forgotten

FILLED = {
    "{agent}": ("echo",),
    "{chat:path}": ("talk",),
    "{key:any}": ("waiting", "asking", "doubted", "planning", "said"),
    "{key:path}": ("waiting", "asking", "doubted", "planning", "said"),
    "{name:path}": ("t",),
    "{queue:path}": ("quiet",),
    "{scope}": ("tag",),
    "{thread:path}": ("talk",),
}
"""What stands in an address for its parameters: something that is there."""

STREAMS = ("/watch", "/parts/live/")
"""Answers that end with their run."""


def addresses(routes: Iterable[Any], methods: set[str]) -> Iterator[tuple[str, str]]:
    """Each route of the site that takes one of these methods, with an address that is its own."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from addresses(included.routes, methods)
            continue
        for method in sorted(methods & set(getattr(route, "methods", None) or ())):
            for address in filled(route.path):
                yield method, address


def filled(path: str) -> list[str]:
    names = re.findall(r"{[^}]*}", path)
    if any(name not in FILLED for name in names):
        assert path in ("/static/{name}", "/parts/tab/{tab}/{key:any}", "/{rest:path}"), path
        return []
    found = [path]
    for name in names:
        found = [one.replace(name, value) for one in found for value in FILLED[name]]
    return found


WRITES = sorted(
    addresses(
        create_app(Durably("sqlite:///nowhere.db"), access=OpenAccess()).routes,
        {"POST", "PUT", "PATCH", "DELETE"},
    )
)
API = [where for where in WRITES if where[1].startswith("/api/")]
FORMS = [where for where in WRITES if not where[1].startswith("/api/")]


def test_everything_that_can_be_sent_has_an_address_here(shop: Shop) -> None:
    """An address that no route has would be refused by nobody, and prove nothing."""
    kinds = {"approve", "deny", "answer", "resolve", "signal", "cancel", "retry", "budget"}
    for prefix in ("/api/runs/waiting/", "/do/"):
        there = {path.removeprefix(prefix).partition("/")[0] for _, path in WRITES}
        assert kinds - {"budget" if prefix == "/do/" else "share"} <= there, prefix
    with shop.client() as client:
        nowhere = client.request("POST", "/api/nowhere").json()["detail"]
        for method, path in WRITES:
            answer = client.request(method, path, headers={"Content-Type": "image/png"})
            check(answer)
            found = f"{method} {path}: {answer.status_code} {answer.text[:300]}"
            assert answer.status_code != 405 and nowhere not in answer.text, found


# --- requests of programs


def test_nothing_that_is_sent_breaks_the_site(shop: Shop) -> None:
    with shop.client() as client:
        for body in ODD_JSON:
            whole = body.startswith(b'{"agent"')
            for method, path in [("POST", "/api/runs")] if whole else API:
                for kind in ("application/json", "text/plain; charset=x"):
                    send(client, method, path, body, kind)
        for page in PAGES:
            check(client.get(page))
        for query in QUERIES:
            for page in ("/runs", "/inbox", "/api/runs", "/api/inbox", "/api/statistics", "/"):
                check(client.get(f"{page}?{query}"))
        for page in PAGES[:7]:  # Whatever was enqueued above is shown.
            check(client.get(page))
        fields = described_fields(client)

        @SENT
        @given(st.sampled_from(API), st.data())
        def ask(where: tuple[str, str], data: st.DataObject) -> None:
            method, path = where
            body = data.draw(st.one_of(RUNS, st.binary(max_size=40), objects(fields[path])))
            send(client, method, path, body, "application/json")

        ask()
        check(client.get("/runs"))
        check(client.get("/api/runs"))


def described_fields(client: httpx.Client) -> defaultdict[str, list[str]]:
    """The names of what each address takes, as the API describes itself."""
    described = client.get("/api/openapi.json").json()
    parts = described["components"]["schemas"]
    named: dict[str, list[str]] = {}
    for template, operations in described["paths"].items():
        for operation in operations.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            schema = body.get("schema", {})
            schema = parts.get(schema.get("$ref", "").rpartition("/")[2], schema)
            pattern = re.sub(r"{[^}]*}", "[^/]+", template)
            for _, path in API:
                if re.fullmatch(pattern, path) and schema.get("properties"):
                    named[path] = list(schema["properties"])
    assert {"/api/runs/waiting/approve", "/api/runs/planning/signal"} <= named.keys()
    return defaultdict(list, named)


# --- chats


AG_UI = {
    "threadId": "c",
    "runId": "r",
    "messages": [{"id": "m", "role": "user", "content": "hi"}],
    "state": {},
    "tools": [],
    "context": [],
    "forwardedProps": {},
}
VERCEL = {
    "trigger": "submit-message",
    "id": "c",
    "messages": [{"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}],
}


def test_no_chat_breaks_the_site_and_none_leaves_a_run_that_cannot_end(shop: Shop) -> None:
    with shop.client() as client:

        @SENT
        @given(st.sampled_from([("ag-ui", AG_UI), ("vercel", VERCEL)]), st.data())
        def say(chat: tuple[str, Any], data: st.DataObject) -> None:
            name, body = chat
            sent = json.dumps(changed(body, data.draw)).encode()
            send(client, "POST", f"/api/ui/{name}/echo", sent, "application/json")

        say()
        check(client.get("/api/runs"))
    asyncio.run(_all_end(shop))


async def _all_end(shop: Shop) -> None:
    async with shop.app() as app:
        before = {run.key for run in await app.runs(agent="echo", limit=1000)}
        await app.drain()
        for key in before - {"later"}:
            assert (await app.get(key)).state.final, key


def changed(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """A request in which something, somewhere, is something else, or is gone."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 4)):
            return {key: value[key] for key in value if key != name}
        return value | {name: changed(value[name], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        return [changed(value[0], draw), *value[1:]] * draw(st.integers(1, 2))
    return draw(VALUES)


# --- people's forms, and readers that come back


def test_no_form_breaks_the_site(shop: Shop) -> None:
    with shop.client() as client:
        pages = ["/inbox", "/runs", "/workers", "/login", *(f"/runs/{key}" for key in KEYS)]
        pages += [f"/parts/decide/{key}" for key in KEYS]
        named = re.findall(r'name="([^"]+)"', "".join(client.get(page).text for page in pages))
        names = sorted({html.unescape(name) for name in named})
        assert {"form_token", "call"} & set(names), names

        @SENT
        @given(st.sampled_from(FORMS), _forms(names), st.booleans())
        def post(where: tuple[str, str], body: bytes, multipart: bool) -> None:
            kind = "multipart/form-data; boundary=b" if multipart else URLENCODED
            send(client, *where, body, kind)

        post()
        for page in pages:
            check(client.get(page))


KEYS = FILLED["{key:any}"]
URLENCODED = "application/x-www-form-urlencoded"


def _forms(names: list[str]) -> st.SearchStrategy[bytes]:
    name = st.sampled_from(names) | TEXT
    value = TEXT | st.sampled_from(["1.0", "1.1", "true", "-1", "9" * 5000, "1e999", "{", "null"])
    posted = st.lists(st.tuples(name, value), max_size=6)

    def encoded(fields: list[tuple[str, str]]) -> bytes:
        return urlencode([(n, v) for n, v in fields], errors="surrogatepass").encode()

    def in_parts(fields: list[tuple[str, str]]) -> bytes:
        parts = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields
        )
        return (parts + "--b--\r\n").encode("utf-8", "surrogatepass")

    return posted.map(encoded) | posted.map(in_parts) | st.binary(max_size=60)


def test_a_reader_may_have_seen_anything(shop: Shop) -> None:
    with shop.client() as client:
        streams = [
            path
            for _, path in addresses(create_app(shop.app(), access=OpenAccess()).routes, {"GET"})
            if (any(part in path for part in STREAMS) and path.endswith("said"))
            or path.endswith("said/watch")
        ]
        assert len(streams) == 2, streams
        odd = [b"", b"-1", b"1e3", b"9" * 30, b"9" * 5000, b"0x1", b"\xff", b"\xb2", b"1;2", b"NaN"]
        header = st.sampled_from(odd) | st.binary(max_size=20).map(
            lambda raw: bytes(byte for byte in raw if byte > 31 and byte != 127).strip()
        )

        @SENT
        @given(st.sampled_from(streams), header, st.sampled_from(["", "?after=%C2%B2"]))
        def come_back(path: str, seen: bytes, query: str) -> None:
            check(client.get(path + query, headers=[(b"Last-Event-ID", seen)]))

        come_back()


# --- helpers


SENT = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=examples(120),
)

TEXT = st.text(st.characters(codec=None), max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
_OF_RUNS = ("key", "queue", "priority", "max_attempts", "delay", "args", "tags", "meta", "thread")
RUNS = st.fixed_dictionaries(
    {"agent": st.just("echo"), "prompt": TEXT}, optional=dict.fromkeys(_OF_RUNS, VALUES)
).map(lambda value: json.dumps(value).encode())


def objects(fields: list[str]) -> st.SearchStrategy[bytes]:
    """JSON, most of it with fields of these names."""
    usual = st.sampled_from(["1.0", "date", 1, True, None])
    named = st.fixed_dictionaries({}, optional=dict.fromkeys(fields, VALUES | usual))
    return (named | VALUES).map(lambda value: json.dumps(value).encode())


def send(client: httpx.Client, method: str, path: str, body: bytes, kind: str) -> None:
    """Send it, and look at how it is answered; not at the whole of a stream."""
    asked = client.stream(method, path, content=body, headers={"Content-Type": kind})
    with asked as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            assert answer.status_code in ANSWERED
            return
        answer.read()
        check(answer)
