"""The REST API where its description says little: hostile values, errors, what is hidden."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from prometheus_client.parser import text_string_to_metric_families

from durably import Durably
from durably.errors import DurablyError, LedgerError, LedgerUnavailable
from durably.web import OpenAccess, create_app
from durably.web.errors import wrong
from durably.web.routing import MAX_BODY_BYTES, SiteRoute
from support.serving import serving
from support.web import Shop

JSON = {"Content-Type": "application/json"}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


HOSTILE = [
    ('{"agent": "a\\u0000", "prompt": "p"}', 422, "body.agent: it holds the character NUL"),
    ('{"agent": "a", "prompt": "p", "tags": ["\\ud800"]}', 422, "body.tags.0: it holds half a"),
    ('{"agent": "a", "prompt": "p", "key": " "}', 422, "body.key: "),
    ('{"agent": "a", "prompt": "\\ud800"}', 422, "half a character"),
    ('{"agent": "a", "prompt": "p", "args": {"x": NaN}}', 422, "NaN"),
    ('{"agent": "a", "prompt": "p", "priority": 1e400}', 422, "body.priority"),
    ('{"agent": "a", "prompt": "p", "priority": true}', 422, "body.priority: it is no number"),
    ('{"agent": "a", "prompt": "p", "max_attempts": ' + "9" * 400 + "}", 422, "max_attempts"),
    ('{"agent": "a", "prompt": "p", "meta": {"x": ' + "9" * 5000 + "}}", 400, "parsing the body"),
    ('{"agent": "a", "prompt": "p", "args": {"x": ' + nested(100) + "}}", 422, "more than 64"),
    ('{"agent": "a", "prompt": "p", "args": {"x": ' + nested(10**5) + "}}", 400, "parsing the"),
    ('{"agent": "a", "prompt": "p", "scheduled_at": "2026-01-01T00:00:00"}', 422, "scheduled_at"),
    ('{"agent": "a", "prompt": "p", "promt": "q"}', 422, "body.promt: Extra inputs"),
    ('{"agent": "a", "prompt": "p", "key": "k", "unique_for": 5}', 422, "not both"),
    ('{"agent": "a", "prompt": [{"kind": "binary"}]}', 422, "body.prompt.0.kind"),
    ('{"agent": "a", "prompt": "p"', 400, "JSON decode error"),
    ("\x00", 400, "JSON decode error"),
    (json.dumps({"agent": "a", "prompt": "p" * MAX_BODY_BYTES}), 413, "larger than"),
]


@pytest.mark.parametrize("ledger_url", ["sqlite", "postgres"], indirect=True)
def test_a_hostile_value_is_refused_with_a_sentence_or_kept_as_it_is(shop: Shop) -> None:
    with shop.client() as client:
        for body, status, said in HOSTILE:
            refused = client.post("/api/runs", content=body, headers=JSON)
            assert refused.status_code == status, (body[:80], refused.text)
            assert refused.headers["content-type"] == "application/problem+json"
            assert said in refused.json()["detail"], (body[:80], refused.text)
        chunked = client.post("/api/runs", content=iter([b" " * 2**20] * 5), headers=JSON)
        assert chunked.status_code == 413
        assert client.post("/api/runs", data={"agent": "a"}).status_code == 415
        for path in ("/api/runs/a%00b", "/api/runs?tag=%00", f"/api/runs?before={'9' * 30}"):
            assert client.get(path).status_code == 422, path
        assert client.get("/api/runs/none").json()["type"] == "urn:durably:run-not-found"
        assert client.get("/api/runs/a%0Ab").status_code == 404

        # What both databases can keep, they do: also what hardly any encoding has.
        odd = {"nul": "\0", "half": "\ud800", "deep": json.loads(nested(50)), "big": 10**300}
        asked = {"agent": "a", "prompt": "\0 \U0001f9fe", "args": odd, "meta": odd, "key": "o/d d"}
        made = client.post("/api/runs", content=json.dumps(asked), headers=JSON)
        assert made.status_code == 201, made.text
        there = client.get("/api/runs/o/d d").json()
        assert (there["prompt"], there["args"], there["meta"]) == (asked["prompt"], odd, odd)
        assert client.post("/api/runs", content=json.dumps(asked), headers=JSON).status_code == 200
        sent = {"name": "n", "payload": odd}
        signalled = client.post("/api/runs/o/d d/signal", content=json.dumps(sent), headers=JSON)
        assert signalled.status_code == 200
        assert client.get("/api/runs/o/d d/signals").json()["signals"][0]["payload"] == odd


def test_what_can_be_done_is_done_and_written_down(shop: Shop) -> None:
    with shop.client() as client:
        inbox = client.get("/api/inbox", params={"limit": 2}).json()
        items = {item["run_key"]: item for item in inbox["items"]}
        more = client.get("/api/inbox", params={"after": inbox["next"]}).json()
        items |= {item["run_key"]: item for item in more["items"]}
        assert {key: item["decisions"] for key, item in items.items()} == {
            "waiting": ["approve", "edit", "deny"],
            "asking": ["answer", "deny"],
            "doubted": ["done", "failed", "again"],
        }

        def decide(key: str, what: str, **said: Any) -> int:
            call = {"call_id": items[key]["effect"]["call_id"]}
            return client.post(f"/api/runs/{key}/{what}", json=call | said).status_code

        assert decide("asking", "answer", value="green") == 422
        assert decide("asking", "answer", value="red", note="nice") == 200
        assert decide("asking", "answer", value="blue") == 409
        assert decide("doubted", "resolve") == 422
        assert decide("doubted", "resolve", failed="It did not.") == 200
        assert decide("waiting", "approve", expected={"amount": 6}) == 409
        assert decide("waiting", "approve", args={"amount": 7}) == 200
        many = client.post("/api/bulk/cancel", json={"where": {"agent": "echo"}}).json()
        assert [run["key"] for run in many["runs"]] == ["later"] and many["done"] == 1
        back = client.post("/api/bulk/retry", json={"keys": ["later", "said", "none"]}).json()
        assert [run["done"] for run in back["runs"]] == [True, False, False]
        assert client.post("/api/bulk/cancel", json={"where": {}}).status_code == 422
        raised = client.post("/api/runs/planning/budget", json={"usd": "1.50"}).json()
        assert raised["budget"]["usd"] == "1.5"
        put = client.put("/api/budgets/tag/acme/eu", json={"tokens": 5, "on_limit": "discard"})
        assert put.json()["limits"] == {"tokens": 5, "on_limit": "discard"}
        assert client.delete("/api/budgets/tag/acme/eu").status_code == 204
        assert client.delete("/api/budgets/tag/acme/eu").status_code == 404
        assert client.post("/api/queues/a/b/scale", json={"limit": 3}).json()["limit"] == 3

        done = [action["action"] for action in client.get("/api/actions").json()["actions"]]
        expected = "scale remove_budget set_budget raise_budget retry cancel approve resolve answer"
        assert done[: len(expected.split())] == expected.split()

        asyncio.run(_drain(shop))
        assert client.get("/api/runs/waiting").json()["output"] == "pay_back: paid back 7"
        found = client.get("/api/statistics", params={"by": "agent", "buckets": 2}).json()
        assert found["states"]["completed"] >= 5 and len(found["total"]["buckets"]) == 2
        steps = client.get("/api/runs/waiting/timeline").json()["steps"]
        assert [step["tools"] for step in steps] == [["pay_back"], []]
        said = client.get("/api/threads/talk/conversation").json()["messages"]
        assert [part["content"] for m in said for part in m["parts"]] == [
            "hello", "5: hello", "again", "5: hello"
        ]  # fmt: skip


async def _drain(shop: Shop) -> None:
    async with shop.app() as app:
        await app.drain()


def test_metrics_are_read_by_prometheus_and_probes_say_what_is_missing(
    shop: Shop, tmp_path: Path
) -> None:
    with shop.client() as client, shop.client(None) as stranger:
        assert stranger.get("/metrics").status_code == 401
        assert stranger.get("/readyz").json() == {
            "ready": True,
            "checks": [{"name": n, "ok": True} for n in ("database", "schema", "workers")],
        }
        answer = client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }
        assert found[("durably_waiting_for_people", "approval")] == 1
        assert found[("durably_calls_in_doubt",)] == 1
        assert found[("durably_due_runs", "agents")] == 1
        assert found[("durably_oldest_due_seconds", "agents")] >= 0
        assert found[("durably_open_runs", "agents", "suspended")] == 4
        assert found[("durably_runs", "completed")] == 2
        assert found[("durably_queue_paused", "quiet")] == 1
        assert found[("durably_workers",)] == 1
    alone = Durably(f"sqlite:///{tmp_path}/other.db")
    with serving(create_app(alone, access=OpenAccess())) as url, shop.client() as client:
        missing = client.get(f"{url}/readyz")
        assert missing.status_code == 503
        assert missing.json()["checks"][-1] == {"name": "workers", "ok": False}


def test_what_the_application_hides_is_hidden_everywhere(shop: Shop) -> None:
    secret = "hello"

    def hide(what: str, value: Any) -> Any:
        return json.loads(json.dumps(value).replace(secret, "*****"))

    with serving(create_app(shop.app(), access=OpenAccess(), redact=hide)) as url:
        for path in ("", "/history", "/events", "/effects", "/watch", "/timeline", "/attempts"):
            with shop.client(None) as client:
                answer = client.get(f"{url}/api/runs/said{path}")
                assert answer.status_code == 200 and secret not in answer.text, path
                assert ("*****" in answer.text) == (path in ("", "/history", "/watch")), path
        with shop.client(None) as client:
            for path in ("threads/talk/conversation", "ui/vercel/echo/talk/messages", "runs"):
                answer = client.get(f"{url}/api/{path}")
                assert answer.status_code == 200 and secret not in answer.text, path
                assert "*****" in answer.text, path


def test_every_route_answers_its_errors_itself() -> None:
    """Inside an application of somebody else's there is nobody who would."""
    api = create_app(Durably("sqlite:///none.db"), access=OpenAccess())
    routes = [context.original_route for context in iter_route_contexts(api.routes)]
    ours = [route for route in routes if isinstance(route, APIRoute)]
    assert len(ours) > 40
    assert [route.path for route in ours if not isinstance(route, SiteRoute)] == []


def test_every_error_that_can_reach_a_request_has_a_status() -> None:
    inside = {"NotDone", "StepFailed", "ToolExited", "TransactionEnded", "RunFailed"}
    shown = {}
    for kind in DurablyError.__subclasses__():
        if kind.__name__ not in inside and kind.__module__ == "durably.errors":
            made = kind.__new__(kind, "why")
            made.args = ("why",)
            found = wrong(made) if kind is not LedgerError else wrong(LedgerUnavailable("why"))
            assert found is not None, kind
            shown[kind.__name__] = found
    assert shown["LedgerError"].status == 503
    assert shown["LedgerError"].headers == {"Retry-After": "2"}
    assert shown["RunNotFound"].type == "urn:durably:run-not-found"
    assert wrong(ZeroDivisionError()) is None
