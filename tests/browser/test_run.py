"""The page of a run in a browser: it is followed live, through a crash, and acted on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Page, expect

from durably import Durably, RunState
from support.stage import Stage

type Open = Callable[..., Awaitable[Page]]


def script(*responses: list[dict[str, Any]]) -> str:
    return json.dumps(responses)


async def test_stream_grows_survives_the_worker_and_ends_as_the_message(
    stage: Stage, app: Durably, visit: Open
) -> None:
    said = script(
        [{"text": "Let me **look**. "}, {"wait": "l1"}, {"call": "look_up", "args": '{"num'}]
        + [{"wait": "l2"}, {"more": 'ber": 42}'}],
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
