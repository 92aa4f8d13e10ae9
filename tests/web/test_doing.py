"""What people do from forms: each action once, by name, only what is allowed, on both databases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from durably import Budget
from support.web import OPERATOR, VIEWER, Shop

BOTH = pytest.mark.parametrize("ledger_url", ["sqlite", "postgres"], indirect=True)

HTMX = {"HX-Request": "true"}


@contextmanager
def logged_in(shop: Shop, name: str) -> Iterator[httpx.Client]:
    """A browser of somebody who has logged in, whose every post carries the form's token."""
    with httpx.Client(base_url=shop.url, timeout=60) as client:
        assert client.post("/login", data={"token": OPERATOR, "name": name}).status_code == 303
        found = re.search(r'"X-Form-Token": "(\w+)"', client.get("/runs/waiting").text)
        assert found
        client.headers["X-Form-Token"] = found[1]
        yield client


def do(client: httpx.Client, action: str, key: str, **form: str) -> tuple[int, str]:
    """Post a form as htmx does: the status, and what is said."""
    answer = client.post(f"/do/{action}/{key}", data=form, headers=HTMX)
    changed = answer.headers.get("HX-Trigger") == "durably:changed"
    assert changed == (answer.status_code == 200)
    return answer.status_code, re.sub(r"<[^>]+>", "", answer.text)


@BOTH
async def test_every_action_is_done_once_and_by_name(shop: Shop) -> None:
    with logged_in(shop, "ann") as ann:
        async with shop.app() as app:
            waiting = await app.get("waiting")
            (call,) = await waiting.effects()
            args: dict[str, Any] = json.loads(call.args)
            expected = json.dumps(args)
            stale = json.dumps(args | {"x": 1})
            status, said = do(ann, "approve", "waiting", call_id=call.call_id, expected=stale)
            assert status == 409, said
            status, said = do(ann, "approve", "waiting", call_id=call.call_id, args="[1]")
            assert (status, "object" in said) == (422, True), said
            told = {"call_id": call.call_id, "expected": expected, "args": expected}
            assert do(ann, "approve", "waiting", **told) == (
                200,
                f"Call {call.call_id} is approved.×",
            )
            status, said = do(ann, "deny", "waiting", call_id=call.call_id, reason="no")
            assert (status, "waits for no" in said or "approved" in said) == (409, True), said
            (decision,) = await waiting.decisions()
            assert (decision.decision, decision.by) == ("approved", "ann")
            assert decision.args_after in (None, decision.args_before), "nothing was edited"

            asking = await app.get("asking")
            (question,) = await asking.effects()
            status, said = do(ann, "answer", "asking", call_id=question.call_id, value="42")
            assert (status, "none of the choices" in said) == (422, True), said
            status, said = do(ann, "answer", "asking", call_id=question.call_id, value="red")
            assert status == 200, said
            (decision,) = await asking.decisions()
            assert (decision.decision, decision.by) == ("answered", "ann")

            doubted = await app.get("doubted")
            (doubt,) = [e for e in await doubted.effects() if e.asked]
            status, said = do(ann, "resolve", "doubted", call_id=doubt.call_id)
            assert (status, "exactly one" in said) == (422, True), said
            status, said = do(ann, "resolve", "doubted", call_id=doubt.call_id, done="not JSON")
            assert (status, "is not JSON" in said) == (422, True), said
            status, said = do(ann, "resolve", "doubted", call_id=doubt.call_id, failed="It broke.")
            assert status == 200, said
            assert [d.by for d in await doubted.decisions()] == ["ann"]

            assert do(ann, "raise", "later", usd="1.50", requests="7", note="why not")[0] == 200
            later = await app.get("later")
            assert (later.budget.requests, str(later.budget.usd)) == (7, "1.5")
            assert do(ann, "raise", "later", tokens="lots")[0] == 422
            assert do(ann, "signal", "later", name="go", value='{"n": 1}')[0] == 200
            (signal,) = await later.signals()
            assert (signal.name, signal.payload, signal.by) == ("go", {"n": 1}, "ann")
            assert do(ann, "cancel", "later")[0] == 200
            assert do(ann, "cancel", "later")[0] == 409
            assert do(ann, "retry", "later")[0] == 200
            events = {e.kind: e.data.get("by") for e in await later.events()}
            assert events["cancelled"] == events["revived"] == "ann"
            assert do(ann, "cancel", "nowhere")[0] == 404


async def test_field_that_comes_twice_or_as_a_file_is_refused(shop: Shop) -> None:
    with logged_in(shop, "ann") as ann:
        fields = {
            "approve": ["call_id", "expected", "args", "note"],
            "deny": ["call_id", "reason"],
            "answer": ["call_id", "value", "note"],
            "resolve": ["call_id", "done", "failed", "note"],
            "raise": ["requests", "usd", "note"],
            "share": ["scope", "name", "tokens"],
            "signal": ["name", "value"],
        }
        for action, name in [(action, name) for action, names in fields.items() for name in names]:
            for sent in ({"data": {name: ["1", "2"]}}, {"files": {name: b"1"}}):
                answer = ann.post(f"/do/{action}/asking", headers=HTMX, **sent)
                assert answer.status_code == 422, (action, name, answer.text)
                assert f"Give &#39;{name}&#39; once, as text." in answer.text, (action, answer.text)
        twice = {"name": "go", "next": ["/runs", "/inbox"]}
        assert ann.post("/do/signal/later", data=twice).status_code == 422
        async with shop.app() as app:
            assert not await (await app.get("later")).signals(), "refused before it was sent"


async def test_budget_that_runs_share_is_raised_from_a_run_that_waits_for_it(shop: Shop) -> None:
    with logged_in(shop, "ann") as ann:
        async with shop.app() as app:
            await app.set_budget(Budget(requests=1, tokens=9_000), tag="team")
            for key in ("first", "poor"):
                await app.enqueue("echo", "hi", key=key, tags=["team"])
                await app.drain()
            poor = "poor"
            form = ann.get(f"/parts/decide/{poor}?how=share").text
            assert 'name="scope" value="tag"' in form and "team" in form
            status, said = do(ann, "share", poor, scope="tag", name="team")
            assert (status, "at least one" in said) == (422, True), said
            status, said = do(ann, "share", poor, scope="tag", name="others", requests="5")
            assert (status, "no budget" in said) == (422, True), said
            assert do(ann, "share", poor, scope="tag", name="team", requests="50")[0] == 200
            (budget,) = [b for b in await app.budgets() if b.name == "team"]
            assert (budget.limits.requests, budget.limits.tokens) == (50, 9_000)
            assert (await app.get(poor)).state == "available"
            assert (await app.actions(limit=1))[0].by == "ann"
            assert ann.get(f"/parts/decide/{poor}?how=share").status_code == 409


async def test_forms_without_a_script_come_back_here_and_nowhere_else(shop: Shop) -> None:
    with logged_in(shop, "ann") as ann, shop.client(VIEWER) as viewer:
        page = ann.get("/runs/said/again")
        assert page.status_code == 200 and 'href="/runs/said"' in page.text
        back = ann.post("/do/cancel/later", data={"next": "/runs?state=cancelled"})
        assert (back.status_code, back.headers["location"]) == (303, "/runs?state=cancelled")
        back = ann.post("/do/retry/later", data={"next": "https://elsewhere.example/"})
        assert (back.status_code, back.headers["location"]) == (303, "/")
        late = ann.post("/do/retry/later")
        assert late.status_code == 409 and "revive" in late.text
        for action in (
            "cancel",
            "retry",
            "approve",
            "deny",
            "answer",
            "resolve",
            "raise",
            "share",
            "signal",
        ):
            assert viewer.post(f"/do/{action}/later").status_code == 403
            forged = ann.post(f"/do/{action}/later", headers={"X-Form-Token": "no"})
            assert forged.status_code == 403


async def test_any_key_has_a_page_that_links_and_acts(shop: Shop) -> None:
    keys = ["a/../b", "what?x=1#y", "100%41", "/", "ü \N{RIGHT-TO-LEFT OVERRIDE}<b>", "-rf", "a//b"]
    with logged_in(shop, "ann") as ann:
        async with shop.app() as app:
            for key in keys:
                run = await app.enqueue("nobody", "hi", key=key, queue="nowhere")
                runs = ann.get("/runs?queue=nowhere&limit=100").text
                links = re.findall(r'href="(/runs/[^"?]+)"', runs)
                page = ann.get(links[0])
                assert page.status_code == 200, (key, links)
                action = re.search(r'action="(/do/cancel/[^"]+)"', page.text)
                assert action is not None
                done = ann.post(action[1], headers=HTMX)
                assert done.status_code == 200
                assert (await run.refresh()).state.final, key
                assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page.text
            for part in ("head", "saved", "json", "tab/timeline", "tab/events", "live"):
                assert ann.get(f"/parts/{part}/{'a%2F..%2Fb'}").status_code == 200, part


async def test_whole_values_are_text_that_does_nothing(shop: Shop) -> None:
    with shop.client(VIEWER) as viewer:
        prompt = viewer.get("/parts/value/said", params={"field": "prompt"})
        assert prompt.text == "hello"
        assert prompt.headers["content-type"].startswith("text/plain")
        assert "sandbox" in prompt.headers["content-security-policy"]
        whole = viewer.get("/parts/json/said", params={"download": True})
        assert whole.json()["run"]["key"] == "said"
        assert whole.headers["content-disposition"] == 'attachment; filename="said.json"'
        message = viewer.get("/parts/value/said", params={"message": 0, "part": 0})
        assert message.text == "hello"
        for nothing in ({"field": "id"}, {"message": 99}, {"message": 0, "part": 9}, {"call": "x"}):
            assert viewer.get("/parts/value/said", params=nothing).status_code == 404
        assert viewer.get("/runs/said?tab=nope").status_code == 404
        assert viewer.get("/runs/nowhere").status_code == 404


async def test_page_that_comes_back_is_told_what_it_missed(shop: Shop) -> None:
    with shop.client(VIEWER) as viewer:
        page = viewer.get("/runs/waiting")
        live = re.search(r'data-live="(/parts/live/waiting\?after=\d+)"', page.text)
        assert live and "message-1" in page.text
        async with shop.app() as app:
            run = await app.get("waiting")
            (call,) = [e for e in await run.effects() if e.asked]
            await run.deny(call.call_id)
            await app.drain()
            ids = [event.id for event in await run.events() if event.kind == "step"]
        first = viewer.get(live[1]).text
        # It has seen all but the last step, and what came after.
        again = viewer.get(live[1], headers={"Last-Event-ID": str(ids[-1] - 1)}).text
        end = viewer.get(live[1], headers={"Last-Event-ID": re.findall(r"id: (\d+)", first)[-1]})
    for told in (first, again):
        html = "".join(
            json.loads(d).get("html", "") for d in re.findall(r"^data: (.*)$", told, re.M)
        )
        # The call with its answer, the new message, nothing in the making; each in its own place.
        assert html.count('id="message-1"') == html.count('id="message-3"') == 1
        assert "It was denied." in html and 'id="making" aria-busy="false"></div>' in html
        assert told.count("event: end") == 1 and told.count("event: moved") == 1
    assert "event: end" in end.text and "message-" not in end.text
