"""The page of a run in a browser: it is followed live, through a crash, and acted on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Locator, Page, expect

from durably import Durably, RunState
from support.stage import VIEWER, Stage, until

type Open = Callable[..., Awaitable[Page]]


def script(*responses: list[dict[str, Any]]) -> str:
    return json.dumps(responses)


async def test_stream_grows_survives_the_worker_and_ends_as_the_message(
    stage: Stage, app: Durably, visit: Open
) -> None:
    said = script(
        [
            {"text": "Let me **look**. "},
            {"wait": "l1"},
            {"call": "look_up", "args": '{"num'},
            {"wait": "l2"},
            {"more": 'ber": 42}'},
        ],
        [{"text": "The first half, "}, {"wait": "l3"}, {"text": "and the second."}],
    )
    run = await app.enqueue("fragile", said, key="live/1", queue="fragile")
    page = await visit("runs/live/1")
    doomed = stage.work("--queue", "fragile=1", "--lease", "5", "--name", "doomed")
    making, turns = page.locator("#making"), page.locator("#turns")

    await expect(making.locator("strong")).to_have_text("look")
    stage.let("l1")
    await expect(making.locator("summary")).to_contain_text('{"num')
    stage.let("l2")
    # The response is whole, its call is answered, and the next response has begun.
    await expect(making).to_contain_text("The first half,")
    await expect(turns.locator(".call")).to_contain_text('{ "number": 42 }')
    await turns.locator(".call summary").click()
    await expect(turns.locator(".call .inner")).to_contain_text('"lamp"')
    await expect(page.locator("#head h1")).to_contain_text("executing")

    stage.kill(doomed)
    stage.work("--queue", "fragile=1", "--lease", "5", "--name", "heir")
    await expect(turns).to_contain_text("the half message is taken back")
    await expect(making).to_contain_text("The first half,")
    stage.let("l3")

    await expect(turns.locator(".prose").last).to_have_text("The first half, and the second.")
    await expect(making).to_be_empty()
    await expect(page.locator("#head h1")).to_contain_text("completed")
    await expect(page.locator("#head .line")).to_contain_text("1 crash")
    assert await turns.locator(".call[open]").count() == 1, "what was opened stays open"
    ids = await turns.locator("> li").evaluate_all("found => found.map(e => e.id)")
    assert len(ids) == len(set(ids)), "nothing is shown twice"
    assert (await run.refresh()).state is RunState.COMPLETED

    shown = await turns.inner_text()
    await page.reload()
    again = await page.locator("#turns").inner_text()
    for text in ("Let me look.", "The first half, and the second.", "Attempt 2 goes on"):
        assert text in again and text in shown


async def sure(page: Page) -> None:
    """Say yes to what the page asks."""
    await page.locator("#confirm-yes").click()


async def waiting(app: Durably, key: str, *responses: list[dict[str, Any]], **options: Any) -> None:
    """A run of the actor, once it waits for a person."""
    run = await app.enqueue(options.pop("agent", "actor"), script(*responses), key=key, **options)

    async def waits() -> bool:
        return (await run.refresh()).state is RunState.SUSPENDED

    await until(f"{key} waits", waits)


REFUND = [{"call": "refund", "args": '{"order": 7, "cents": 1650}'}]


async def test_calls_are_approved_edited_and_denied_from_the_page(
    stage: Stage, app: Durably, visit: Open
) -> None:
    await waiting(app, "decide/1", [*REFUND, *REFUND, *REFUND], [{"text": "So be it."}])
    page = await visit("runs/decide/1", width=390, expect_refusals=True)
    first, second, third = (page.locator(f'[id="call-1.{n}"]') for n in range(3))
    await expect(first.locator("h2")).to_contain_text("May refund run?")

    await first.get_by_role("button", name="Approve", exact=True).click()
    await expect(page.locator("#confirm-question")).to_have_text("Let refund run?")
    await sure(page)
    await expect(first).to_have_count(0)
    await expect(page.locator("#said")).to_contain_text("Call 1.0 is approved.")

    await second.get_by_text("Edit and approve …").click()
    await second.get_by_label("cents").fill("16 euros")
    await second.get_by_role("button", name="Approve as edited").click()
    await sure(page)
    await expect(page.locator("#said .refused")).to_contain_text("'16 euros' is no whole number")
    await second.get_by_label("cents").fill("990")
    await second.get_by_role("button", name="Approve as edited").click()
    await sure(page)
    await expect(second).to_have_count(0)

    await third.get_by_text("Deny …").click()
    await third.get_by_label("Why? The model reads it.").fill("Twice is enough.")
    await third.get_by_role("button", name="Deny", exact=True).click()
    await expect(page.locator("#head h1")).to_contain_text("completed")
    await expect(page.locator("#turns")).to_contain_text("So be it.")
    assert sorted(n for n in stage.notes if "refund 7" in n) == ["refund 7 1650", "refund 7 990"]
    decided = {
        d.call_id: (d.decision, d.by, d.note) for d in await (await app.get("decide/1")).decisions()
    }
    assert decided["1.1"] == ("approved", "operator", "")
    assert decided["1.2"] == ("denied", "operator", "Twice is enough.")


async def test_questions_are_answered_by_hand_with_the_keyboard_and_without_a_script(
    stage: Stage, app: Durably, visit: Open
) -> None:
    form = {
        "type": "object",
        "required": ["street", "floor"],
        "properties": {"street": {"type": "string"}, "floor": {"type": "integer"}},
    }
    asked = [
        {"call": "ask_person", "args": json.dumps({"question": "Which colour?"})},
        {"call": "ask_choice", "args": json.dumps({"question": "Which?", "choices": ["1", "two"]})},
        {"call": "ask_form", "args": json.dumps({"question": "Where?", "form": form})},
    ]
    await waiting(app, "questions", asked, [{"text": "Thanks."}])
    page = await visit("runs/questions")
    text = page.locator('[id="call-1.0"] textarea[name=value]')
    await text.focus()
    await page.keyboard.type("42")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await expect(page.locator('[id="call-1.0"]')).to_have_count(0)

    plain = await visit("runs/questions", java_script_enabled=False)
    await plain.get_by_label("1", exact=True).check()
    await plain.locator('[id="call-1.1"]').get_by_role("button", name="Answer").click()
    await plain.wait_for_url("**/runs/questions")
    await plain.get_by_label("street").fill("Elm 3")
    await plain.get_by_label("floor").fill("4")
    await plain.locator('[id="call-1.2"]').get_by_role("button", name="Answer").click()
    # A decision by somebody else, and what came of it, shows at once.
    await expect(page.locator("#head h1")).to_contain_text("completed")
    effects = {e.call_id: e.result for e in await (await app.get("questions")).effects()}
    assert json.loads(effects["1.0"] or "")["return"]["return_value"] == "42"
    assert json.loads(effects["1.1"] or "")["return"]["return_value"] == "1"
    given = json.loads(effects["1.2"] or "")["return"]["return_value"]
    assert given == {"street": "Elm 3", "floor": 4}


async def test_call_in_doubt_is_settled_and_runs_are_cancelled_and_retried(
    stage: Stage, app: Durably, visit: Open
) -> None:
    charge = {"call": "charge", "args": '{"cents": 5, "until": "never"}'}
    run = await app.enqueue(
        "fragile", script([charge], [{"text": "Paid."}]), key="doubt", queue="d"
    )
    doomed = stage.work("--queue", "d=1", "--lease", "5")

    async def charging() -> bool:
        return "charge 5" in stage.notes

    await until("it charges", charging)
    page = await visit("runs/doubt")
    await expect(page.locator("#turns .call")).to_contain_text("started")
    stage.kill(doomed)
    heir = stage.work("--queue", "d=1", "--lease", "5")
    call = page.locator('[id="call-1.0"]')
    await expect(call.locator("h2")).to_contain_text("Did charge happen?")
    await call.get_by_text("It happened …").click()
    await call.get_by_label("Its result, as JSON").fill('"charged 5, says the bank"')
    await call.get_by_role("button", name="It happened", exact=True).click()
    await sure(page)
    await expect(page.locator("#head h1")).to_contain_text("completed")
    assert stage.notes.count("charge 5") == 1
    stage.kill(heir)

    await page.goto(f"{stage.url}runs/doubt?tab=timeline")
    assert await page.locator(".chart .crash").count() == 1
    await page.get_by_text("The same as a table").click()
    await expect(page.locator("#timeline-table")).to_contain_text("lost")
    await page.get_by_role("link", name="Effects").click()
    await expect(page.locator(".table")).to_contain_text("resolved by operator")

    run = await app.enqueue("fragile", script([{"text": "Never."}]), key="unheard", queue="nobody")
    await page.goto(f"{stage.url}runs/unheard")
    await page.get_by_role("button", name="Cancel run").click()
    await sure(page)
    await expect(page.locator("#head h1")).to_contain_text("cancelled")
    await page.get_by_role("button", name="Retry").click()
    await page.locator("#confirm").get_by_text("Go back").click()
    assert (await run.refresh()).state is RunState.CANCELLED
    await page.get_by_role("button", name="Retry").click()
    await sure(page)
    await expect(page.locator("#head h1")).to_contain_text("available")


async def test_viewers_see_no_buttons_and_what_is_too_late_is_said(
    stage: Stage, app: Durably, visit: Open
) -> None:
    await waiting(app, "shared", REFUND, [{"text": "Done."}])
    looking = await visit("runs/shared", token=VIEWER)
    await expect(looking.locator("#head h1")).to_contain_text("suspended")
    await expect(
        looking.locator("main form, main button.primary, main button.danger")
    ).to_have_count(0)

    page = await visit("runs/shared")
    form = page.locator('[id="call-1.0"] form').first
    fields = {name: await value(form, name) for name in ("form_token", "call_id", "expected")}
    action = f"{stage.url}do/approve/shared"
    refused = await looking.request.post(action, form=fields)
    assert refused.status == 403, "also where somebody writes the form by hand"
    forged = await page.request.post(action, form=fields | {"form_token": "no"})
    assert forged.status == 403
    # Somebody else decides, and the page of the first is as it was.
    await (await app.get("shared")).deny("1.0", by="ann")
    late = await page.request.post(action, form=fields, headers={"HX-Request": "true"})
    assert late.status == 409 and "said refused" in await late.text()
    assert (await page.request.post(action, form=fields)).status == 409
    await expect(page.locator("#head h1")).to_contain_text("completed")


async def value(form: Locator, name: str) -> str:
    return await form.locator(f"[name={name}]").first.input_value()


HOSTILE = """<script>window.hit = 1</script><img src=x onerror="window.hit=2"> \"'>
<svg onload="window.hit=3">
[link](javascript:window.hit=4) ![image](https://elsewhere.example/i.png) [local](/logout)
<a href="javascript:window.hit=5">a</a> <iframe srcdoc="<script>top.hit=6</script>"></iframe>
{{ 7 * 7 }} </textarea></details></pre> \u202eright to left"""


async def test_nothing_hostile_does_anything_wherever_it_is_shown(
    stage: Stage, app: Durably, visit: Open
) -> None:
    bad = {"<script>window.hit=7</script>": HOSTILE, "deep": [HOSTILE] * 3}
    args = json.dumps({"value": bad})
    form = {
        "type": "object",
        "title": HOSTILE,
        "properties": {HOSTILE: {"type": "string", "description": HOSTILE, "default": HOSTILE}},
    }
    asked = [
        {"thinking": HOSTILE},
        {"text": HOSTILE + "x" * 50_000},
        {"call": "say", "args": args},
        {"call": "picture"},
        {"call": HOSTILE, "args": "{not JSON" + HOSTILE},
        {"call": "ask_form", "args": json.dumps({"question": HOSTILE, "form": form})},
        {"call": "ask_choice", "args": json.dumps({"question": "?", "choices": [HOSTILE]})},
        {"call": "refund", "args": json.dumps({"order": 1, "cents": 2})},
    ]
    key = f"hostile/{HOSTILE}"
    tags = [HOSTILE, "<b>tag</b>"]
    said = asked, [{"fail": HOSTILE}]
    await waiting(app, key, *said, thread=HOSTILE, tags=tags, meta={"m": HOSTILE}, max_attempts=1)
    run = await app.get(key)
    await app.signal(key, HOSTILE, bad, by=HOSTILE)
    await run.deny("1.3", reason=HOSTILE, by=HOSTILE)
    page = await visit("runs?queue=agents")
    await page.get_by_role("link", name="hostile/").click()
    await expect(page.locator("#head .decision")).to_have_count(2)
    for tab in ("Conversation", "Timeline", "Effects", "Attempts", "Usage", "Events", "Raw"):
        await page.get_by_role("link", name=tab, exact=True).click()
        await expect(page.locator("nav.tabs [aria-current]")).to_have_text(tab)
        await page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
        await harmless(page)
    choice = page.locator('[id="call-1.4"]')
    await choice.get_by_role("radio").check()
    await choice.get_by_role("button", name="Answer", exact=True).click()
    await page.locator('[id="call-1.5"]').get_by_role("button", name="Approve", exact=True).click()
    await sure(page)
    await expect(page.locator("#head h1")).to_contain_text("discarded")
    await expect(page.locator("#head .note.bad")).to_contain_text("window.hit=2")
    await harmless(page)
    await page.get_by_role("link", name="Conversation", exact=True).click()
    await page.locator("#turns .call summary").first.click()
    whole = page.get_by_role("link", name="all of it, as text")
    address = await whole.first.get_attribute("href")
    raw = await page.request.get(stage.url.rstrip("/") + (address or ""))
    assert raw.headers["content-type"].startswith("text/plain") and len(await raw.text()) > 50_000


async def harmless(page: Page) -> None:
    """Nothing was run, nothing is wider than the page, and nothing can be clicked that runs."""
    assert await page.evaluate("window.hit") is None
    links = await page.locator("main a[href]").evaluate_all("a => a.map(one => one.protocol)")
    assert set(links) <= {"http:", "https:", "mailto:"}
    images = await page.locator("main img").evaluate_all(
        "found => found.map(i => i.src.slice(0, 22))"
    )
    assert set(images) <= {"data:image/png;base64,"}
    wide = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, "the page can be read without scrolling sideways"
