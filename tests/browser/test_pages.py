"""The dashboard's pages but a run's own, in a browser: what they show, and what people do there."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from playwright.async_api import Page, expect

from durably import RunState
from support.clerk_of_pages import ADDRESS, QUEUE, Desk
from support.stage import PATIENCE_SECONDS, VIEWER, Stage, staged

type Open = Callable[..., Awaitable[Page]]

REFUND = ("refund", {"order": "A-1", "cents": 900})
PHONE = 390


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A ledger of these tests' own, whose numbers they know."""
    folder = tmp_path_factory.mktemp("pages")
    with staged(folder, f"sqlite:///{folder}/ledger.db") as stage:
        stage.url = stage.serve()
        yield stage


@pytest.fixture
async def desk(stage: Stage) -> AsyncIterator[Desk]:
    desk = Desk(stage.ledger_url)
    async with desk.app:
        yield desk
        # Nothing is left that waits: the next test counts from nothing.
        for item in await desk.app.inbox():
            await (await desk.app.get(item.run_key)).cancel()


async def confirm(page: Page, text: str) -> None:
    dialog = page.locator("#confirm")
    await expect(dialog.locator("#confirm-question")).to_contain_text(text)
    await dialog.locator("#confirm-yes").click()


async def test_overview_counts_and_keeps_itself_up_to_date(desk: Desk, visit: Open) -> None:
    for n in range(3):
        await desk.run(f"fine-{n}")
    await desk.run("broken", ("break", "no model today"))
    await desk.app.enqueue("clerk", "[]", key="later", queue=QUEUE, delay=3600)
    await desk.run("asks", REFUND)
    page = await visit("?window=15m")
    numbers = page.locator(".numbers")
    for state, runs in (("completed", 3), ("discarded", 1), ("scheduled", 1), ("suspended", 1)):
        await expect(numbers.locator(f"#state-{state} .n")).to_have_text(str(runs))
    await expect(page.locator(".people")).to_contain_text("1 to approve")
    runs_a_minute = page.locator(".plot", has_text="Runs a minute")
    await expect(runs_a_minute).to_contain_text("4 ended")
    await runs_a_minute.locator("summary").click()
    await expect(runs_a_minute.locator("tbody tr").first).to_be_visible()
    await expect(page.locator(".plot", has_text="Failures")).to_contain_text("1 discarded")
    assert await page.locator(".plot rect.look-ok").count() >= 1

    await page.locator("#state-completed").focus()
    await desk.run("fine-4")
    await desk.run("doubtful", ("charge", {"cents": 5}))
    await expect(numbers.locator("#state-completed .n")).to_have_text("4")
    await expect(page.locator(".people")).to_contain_text("1 in doubt")
    await expect(page.locator("#inbox-count")).to_have_text("2")
    focused = await page.evaluate("document.activeElement.id")
    assert focused == "state-completed", "the focus stays where it was"
    assert await runs_a_minute.locator("details[open]").count() == 1, "what is open stays open"

    await page.get_by_role("link", name="by agent").click()
    row = page.locator("section", has_text="By agent").locator("tbody tr")
    await expect(row).to_contain_text("clerk")
    await page.locator("#state-discarded").click()
    await expect(page.locator("#runs tbody tr")).to_have_count(1)
    await expect(page.locator("#runs")).to_contain_text("no model today")


async def test_runs_are_found_and_done_many_at_once(desk: Desk, visit: Open) -> None:
    for n in range(4):
        await desk.app.enqueue(
            "clerk", json.dumps([("break", f"reason {n}")]), key=f"bulk/{n}?", queue="nobody",
            tags=["batch"], delay=3600,
        )  # fmt: skip
    await desk.app.enqueue("clerk", "[]", key="other", queue="nobody", delay=3600)
    page = await visit("runs")
    await page.fill("#find-text", "reason 2")
    await page.keyboard.press("Enter")
    rows = page.locator("#runs tbody tr")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("bulk/2?")
    shared = page.url
    await page.goto(shared)
    await expect(rows).to_have_count(1)

    await page.goto(re.sub(r"\?.*", "?tag=batch", shared))
    await expect(rows).to_have_count(4)
    await rows.nth(0).locator("[data-choose]").check()
    await rows.nth(1).locator("[data-choose]").check()
    await page.click("#bulk-cancel")
    await expect(page.locator("#dialog")).to_contain_text("Cancel 2 runs?")
    await page.locator("#dialog button.primary").click()
    await expect(page.locator("#said")).to_contain_text("Done to 2 runs.")
    await expect(rows.locator(".badge", has_text="cancelled")).to_have_count(2)
    await page.click("#bulk-cancel-all")
    await expect(page.locator("#dialog")).to_contain_text("Cancel 2 runs?")
    await page.locator("#dialog button.primary").click()
    await expect(rows.locator(".badge", has_text="cancelled")).to_have_count(4)
    await page.click("#bulk-retry-all")
    await expect(page.locator("#dialog")).to_contain_text("Retry 4 runs?")
    await page.locator("#dialog button.primary").click()
    await expect(rows.locator(".badge", has_text="cancelled")).to_have_count(0)
    assert (await desk.app.get("other")).state is RunState.SCHEDULED, "it does not match"
    await rows.nth(0).locator("[data-open]").click()
    await expect(page.locator("h1")).to_contain_text("bulk/3?")
    trail = await desk.app.actions(run="bulk/3?")
    assert [action.action for action in trail] == ["retry", "cancel"]


async def test_the_inbox_is_worked_through_by_keys_alone(desk: Desk, visit: Open) -> None:
    await desk.run("1-approved", REFUND)
    await desk.run("2-edited", REFUND)
    await desk.run("3-denied", REFUND)
    await desk.run("4-chosen", ("ask_choice", {"question": "Which?", "choices": ["red", "blue"]}))
    await desk.run("5-form", ("ask_form", {"question": "Where to?", "form": ADDRESS}))
    await desk.run("6-doubt", ("charge", {"cents": 7}))
    await desk.broke("7-budget")
    page = await visit("inbox", expect_refusals=True)
    keys, dialog, said = page.keyboard, page.locator("#dialog"), page.locator("#said")
    await expect(page.locator("[data-live]")).to_have_count(7)

    await keys.press("a")
    await expect(dialog).not_to_have_attribute("open", "")  # Nothing has the focus.
    await keys.press("j")
    await keys.press("a")
    await expect(dialog).to_contain_text('"cents": 900')
    await expect(dialog.locator("button.primary")).to_be_focused()
    await keys.press("Enter")
    await expect(page.locator(".item.gone")).to_contain_text("Approved by operator")

    async def focus_on(key: str) -> None:
        await expect(dialog).not_to_be_visible()
        item = page.locator(".item", has=page.get_by_role("link", name=key, exact=True))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            # From the top each time: the list may have changed under the keys.
            for _ in range(12):
                await keys.press("k")
            for _ in range(12):
                if await item.evaluate("item => item === document.activeElement"):
                    return
                await keys.press("j")
        raise AssertionError(f"the keys never came to {key}")

    async def decide(key: str, press: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            await focus_on(key)
            await keys.press(press)
            try:
                return await expect(dialog).to_be_visible(timeout=30_000)
            except AssertionError:
                # The list was renewed between the two, and with it the item that had the focus.
                if time.monotonic() > deadline:
                    raise

    await decide("2-edited", "e")
    await expect(page.locator("[name='args/order']")).to_be_focused()
    await keys.press("Tab")
    await keys.press("Control+a")
    await keys.type("cheap")
    await keys.press("Enter")
    await expect(dialog.locator(".wrong", has_text="whole number")).to_be_visible()
    await keys.press("Control+a")  # The field that is wrong has the focus.
    await keys.type("500")
    await keys.press("Enter")
    await expect(said).to_contain_text("approved with other arguments")

    await decide("3-denied", "d")
    await expect(page.locator("#decide-reason")).to_be_focused()
    await keys.type("Not without a receipt.")
    await keys.press("Tab")
    await keys.press("Tab")
    await keys.press("Enter")
    await expect(said).to_contain_text("denied")

    await decide("4-chosen", "r")
    await expect(dialog.get_by_label("red")).to_be_focused()
    await keys.press("ArrowDown")
    await keys.press("Enter")
    await expect(page.locator("[data-live]")).to_have_count(3)

    await decide("5-form", "Enter")
    await expect(dialog).to_contain_text("Where it goes")
    await expect(page.locator("[name='value/town']")).to_be_focused()
    await keys.type("Bonn")
    await keys.press("Tab")
    await keys.type("3")
    await keys.press("Tab")
    await keys.press("Space")
    await keys.press("Enter")
    await expect(dialog).not_to_be_visible()
    await expect(page.locator("[data-live]")).to_have_count(2)

    await decide("6-doubt", "r")
    await expect(page.locator("#decide-done")).to_be_focused()
    await keys.type('"charged by hand"')
    for _ in range(3):
        await keys.press("Tab")
    await keys.press("Enter")
    await expect(dialog).not_to_be_visible()
    await decide("7-budget", "r")
    await expect(page.locator("#decide-usd")).to_be_focused()
    await keys.press("Tab")
    await keys.type("5")
    await keys.press("Enter")
    await expect(page.locator("[data-live]")).to_have_count(0)

    await desk.work()
    assert sorted(desk.did) == [("A-1", 500), ("A-1", 900)]
    told: dict[str, str] = {}
    for key in ("3-denied", "4-chosen", "5-form", "6-doubt"):
        told[key] = str(await (await desk.app.get(key)).history())
    assert "Not without a receipt." in told["3-denied"]
    assert "blue" in told["4-chosen"]
    assert "{'town': 'Bonn', 'parcels': 3, 'express': True}" in told["5-form"]
    assert "charged by hand" in told["6-doubt"]
    assert {action.by for action in await desk.app.actions(run="1-approved")} == {"operator"}


async def test_what_somebody_else_decides_shows_at_once(desk: Desk, visit: Open) -> None:
    run = await desk.run("contested", REFUND)
    page = await visit("inbox", expect_refusals=True)
    item = page.locator(".item", has_text="contested")
    await item.get_by_role("button", name="Approve").click()
    await expect(page.locator("#dialog")).to_be_visible()
    await run.deny("1.0", reason="Ann was faster.", by="ann")
    await page.locator("#dialog button.primary").click()
    await expect(page.locator("#said .refused")).to_contain_text("ann")
    await expect(page.locator("#dialog")).not_to_be_visible()
    await expect(item).to_have_class(re.compile("gone"))
    await expect(item).to_contain_text("Denied by ann: Ann was faster.")
    await expect(item.get_by_role("button")).to_have_count(0)


async def test_a_viewer_may_look_and_nothing_else(stage: Stage, desk: Desk, visit: Open) -> None:
    run = await desk.run("guarded", REFUND)
    page = await visit("", token=VIEWER, expect_refusals=True)
    for path, text in (("", "Queues"), ("runs", "guarded"), ("inbox", "guarded"),
                       ("workers", QUEUE), ("audit", "Audit")):  # fmt: skip
        await page.goto(stage.url + path)
        await expect(page.locator("main")).to_contain_text(text)
        posts = page.locator("main form[method=post]:not(#runs) button, [data-choose], .do button")
        assert await posts.count() == 0, path
    token = json.loads(await page.locator("body").get_attribute("hx-headers") or "")
    for action in ("do/approve/guarded", "do/cancel/guarded", f"do/pause/{QUEUE}", "do/bulk",
                   "parts/bulk"):  # fmt: skip
        form = {"call_id": "1.0", "form_token": token["X-Form-Token"], "action": "cancel-all"}
        answer = await page.request.post(stage.url + action, form=form)
        assert answer.status == 403, action
    assert (await page.request.get(f"{stage.url}parts/decide/guarded?how=approve")).status == 403

    operator = await visit("inbox")
    forged = await operator.request.post(f"{stage.url}do/pause/{QUEUE}", form={"form_token": "x"})
    assert forged.status == 403
    assert (await run.refresh()).state is RunState.SUSPENDED
    assert not any(queue.paused for queue in await desk.app.queues())


async def test_queues_are_paused_resumed_and_scaled(desk: Desk, visit: Open) -> None:
    await desk.app.enqueue("clerk", "[]", key="waits", queue="slow lane", delay=3600)
    page = await visit("workers", expect_refusals=True)
    row = page.locator("tr", has=page.get_by_role("link", name="slow lane"))
    await row.get_by_role("button", name="Pause").click()
    await confirm(page, "Pause queue slow lane?")
    await expect(row).to_contain_text("paused")
    await row.get_by_role("button", name="Scale").click()
    await page.fill("#scale-limit", "many")
    await page.keyboard.press("Enter")
    await expect(page.locator("#dialog .wrong")).to_contain_text("no number of runs")
    await page.fill("#scale-limit", "3")
    await page.keyboard.press("Enter")
    await expect(row).to_contain_text("3 (scaled)")
    (queue,) = [queue for queue in await desk.app.queues() if queue.queue == "slow lane"]
    assert (queue.paused, queue.limit) == (True, 3)
    await row.get_by_role("button", name="Resume").click()
    await confirm(page, "Resume queue slow lane?")
    await expect(row.get_by_role("button", name="Pause")).to_be_visible()
    await page.get_by_role("link", name="Audit").click()
    actions = page.locator("tbody tr", has_text="slow lane").locator("td:nth-child(3)")
    await expect(actions).to_have_text(["resume", "scale", "pause"])


HOSTILE = '<script>parent.hurt=1</script>"\'><img src=x onerror="hurt=1">javascript:hurt=1'
LONG = "w" * 5000


async def test_hostile_content_does_nothing_and_keeps_to_its_place(
    stage: Stage, desk: Desk, visit: Open
) -> None:
    odd = f"{HOSTILE}/../\u202e?#%2F"
    await desk.run(odd, ("refund", {"order": HOSTILE + LONG, "cents": 1}), tags=[HOSTILE, LONG])
    question = {"question": HOSTILE, "choices": [HOSTILE, LONG]}
    await desk.run("asks-" + "k" * 180, ("ask_choice", question))
    form = {"type": "object", "title": HOSTILE, "properties": {HOSTILE: {"type": "string",
            "description": HOSTILE, "default": LONG}, LONG: {"$ref": "#/nowhere"}}}  # fmt: skip
    await desk.run("forms", ("ask_form", {"question": LONG, "form": form}))
    await desk.run("breaks", ("break", HOSTILE + LONG), thread=HOSTILE)
    await desk.run("damaged", REFUND)
    await desk.app.pause(HOSTILE, by=HOSTILE)
    with sqlite3.connect(stage.folder / "ledger.db") as ledger:
        ledger.execute(
            "UPDATE durably_effects SET args = '{\"' || ? WHERE run_id = "
            "(SELECT id FROM durably_runs WHERE key = 'damaged')",
            (HOSTILE,),
        )
        ledger.execute("UPDATE durably_runs SET agent = ? WHERE key = 'breaks'", (HOSTILE + LONG,))
    for width in (1280, PHONE):
        page = await visit("", width=width)
        for path in ("?by=agent", "?by=queue", "runs", "inbox", "workers", "audit"):
            await page.goto(stage.url + path)
            await expect(page.locator("h1")).to_be_visible()
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{path} is {wide} wider than a screen of {width}"
        await page.goto(f"{stage.url}inbox")
        for n in range(await page.locator("[data-live]").count()):
            for button in await page.locator("[data-live]").nth(n).locator(".do button").all():
                await button.click()
                await expect(page.locator("#dialog h2")).to_be_visible()
                wide = await page.locator("#dialog").evaluate("d => d.scrollWidth - d.clientWidth")
                assert wide <= 0, await button.get_attribute("hx-get")
                await page.keyboard.press("Escape")
        await page.goto(f"{stage.url}runs")
        await page.locator("#runs [data-open]", has_text="<script>parent").click()
        await expect(page.locator("h1")).to_contain_text("<script>")
        assert await page.evaluate("window.hurt") is None
