"""What the browser tests share: a dashboard and workers as processes of their own, and a browser.

A page that a test opens may log no error, break no rule of its security policy and send nothing
anywhere else: that is checked when the test is over.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from durably import Durably
from support.stage import OPERATOR, PATIENCE_SECONDS, Stage, staged

expect.set_options(timeout=PATIENCE_SECONDS * 1000)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the system's Chromium is."""
    given = os.environ.get("DURABLY_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.fail(
            "There is no Chromium, which the browser tests drive: install the package 'chromium' "
            "(`apt-get install chromium`; `.ci/run` does), or name one in DURABLY_CHROMIUM."
        )
    return found


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The dashboard and a worker for the runs of every test; each test has keys of its own."""
    folder = tmp_path_factory.mktemp("stage")
    with staged(folder, f"sqlite:///{folder}/ledger.db") as stage:
        stage.url = stage.serve()
        stage.work("--queue", "agents=20", "--name", "first")
        yield stage


@pytest.fixture
async def app(stage: Stage) -> AsyncIterator[Durably]:
    """The ledger, as an application sees it that has no agents."""
    async with Durably(stage.ledger_url) as app:
        yield app


@pytest.fixture(scope="session")
async def browser(chromium: str, anyio_backend: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # The sandbox needs rights that containers do not give; the pages are our own.
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


type Open = Callable[..., Awaitable[Page]]


@pytest.fixture
async def visit(browser: Browser, stage: Stage) -> AsyncIterator[Open]:
    """Opens a page as somebody who has logged in, and checks at the end that all went well in it.

    ``await visit("runs/k", token=VIEWER, width=390)``; ``expect_refusals=True`` where the test
    does what is refused, which the browser logs as an error.
    """
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    async def opened(
        path: str = "",
        *,
        token: str = OPERATOR,
        width: int = 1280,
        expect_refusals: bool = False,
        **options: Any,
    ) -> Page:
        context = await browser.new_context(
            viewport={"width": width, "height": 900}, locale="en-GB", **options
        )
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        contexts.append(context)
        page = await context.new_page()
        _watch(page, stage.url, wrong, expect_refusals)
        await page.goto(f"{stage.url}login")
        await page.fill("[name=token]", token)
        await page.click("main button")
        await page.wait_for_url(stage.url)
        await page.goto(stage.url + path)
        return page

    yield opened
    for context in contexts:
        await context.close()
    assert not wrong, "\n".join(wrong)


def _watch(page: Page, url: str, wrong: list[str], expect_refusals: bool) -> None:
    def logged(message: Any) -> None:
        refused = expect_refusals and "status of 4" in message.text
        # htmx logs by itself what the server refuses.
        refused |= expect_refusals and "Response Status Error Code 4" in message.text
        if message.type in ("error", "warning") and not refused:
            wrong.append(f"{message.type}: {message.text}")

    def sent(request: Any) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            wrong.append(f"sent elsewhere: {request.url[:200]}")

    page.on("console", logged)
    page.on("pageerror", lambda error: wrong.append(f"not caught: {error}"))
    page.on("request", sent)
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
