"""Take the pictures of the dashboard that the docs show: ``make screenshots``.

Runs the demo, leaves a few things waiting for people beside it, serves the dashboard and visits
every page with the system's Chromium. Writes ``docs/images/*.png``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, sync_playwright
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import Durably, effects, human
from durably.cli.beside import Dashboard
from durably.demo.app import FOLDER
from durably.demo.site import Site

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MOST_BYTES = 200_000
DESKTOP, PHONE = (1160, 760), (390, 780)
TICKET = "T-1012"
"""A ticket in whose middle the demo kills a worker; a person says whether its refund happened."""

QUESTION = {"question": "Which replacement shall go out?", "choices": ["the kettle", "a voucher"]}
ADDRESS = {
    "question": "Where shall the parcel go?",
    "form": {
        "type": "object",
        "properties": {"street": {"type": "string"}, "town": {"type": "string"}},
        "required": ["street", "town"],
    },
}


class Picture(NamedTuple):
    """A page as it is taken: its file, its path, how large and how bright."""

    name: str
    path: str
    size: tuple[int, int] = DESKTOP
    scheme: str = "light"


PICTURES = [
    *(Picture(f"overview-{s}", "?window=15m", scheme=s) for s in ("light", "dark")),
    *(Picture(f"runs-{s}", "runs", scheme=s) for s in ("light", "dark")),
    Picture("conversation", f"runs/{TICKET}"),
    Picture("timeline", f"runs/{TICKET}?tab=timeline"),
    Picture("effects", f"runs/{TICKET}?tab=effects"),
    Picture("inbox", "inbox"),
    Picture("inbox-phone", "inbox", PHONE, "dark"),
    Picture("workers", "workers"),
    Picture("audit", "audit"),
]


def main() -> None:
    """Take them all."""
    folder = Path(tempfile.mkdtemp(prefix="durably-pictures-"))
    try:
        demo = [sys.executable, "-m", "durably", "demo", "--folder", str(folder)]
        subprocess.run(demo, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        url = Site(folder).database.url
        asyncio.run(leave_waiting(url))
        with worker(folder), served(url) as address:
            take(address)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def leave_waiting(url: str) -> None:
    """A few things that wait for a person."""
    async with Durably(url) as app:
        calls = {
            "returns-17": ("refund", {"order": 40198, "cents": 12_900, "why": "lost parcel"}),
            "returns-18": ("ask_choice", QUESTION),
            "returns-19": ("ask_form", ADDRESS),
            "returns-20": ("ship", {"order": 40231, "carrier": "parcel post"}),
        }
        app.register(desk(calls), queue="returns")
        for key in calls:
            await app.enqueue("returns", key, key=key, tags=["shop:north"])
        await app.drain({"returns": 4})


def desk(calls: dict[str, tuple[str, dict[str, Any]]]) -> Agent[None, str]:
    """An agent that calls what its prompt names."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        (key,) = [p.content for p in messages[0].parts if p.part_kind == "user-prompt"]
        if len(messages) > 1:
            return ModelResponse(parts=[TextPart("Done.")])
        return ModelResponse(parts=[ToolCallPart(*calls[str(key)])])

    agent = Agent(
        FunctionModel(answer, model_name="scripted"), name="returns", toolsets=[human.toolset()]
    )

    @agent.tool_plain(metadata=effects.once(approve=True))
    def refund(order: int, cents: int, why: str) -> str:
        return f"refunded {cents}"

    @agent.tool_plain(metadata=effects.once())
    def ship(order: int, carrier: str) -> str:
        raise ConnectionError("the carrier hung up in the middle of its answer")

    return agent


@contextmanager
def worker(folder: Path) -> Generator[None]:
    """A worker, for the picture of workers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "durably", "worker", "--app", "durably.demo.app:app"],
        env=os.environ | {FOLDER: str(folder)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def served(url: str) -> Generator[str]:
    """The dashboard; its address, which logs in."""
    dashboard = Dashboard()
    try:
        yield dashboard.open(url)
    finally:
        dashboard.close()


def take(address: str) -> None:
    """Visit every page and keep what it looks like."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("DURABLY_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        base, _, token = address.partition("?")
        _take(browser, base, "", Picture("login", "login", (640, 420)))
        for picture in PICTURES:
            _take(browser, base, f"?{token}", picture)
        browser.close()


def _take(browser: Browser, base: str, token: str, picture: Picture) -> None:
    width, height = picture.size
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if picture.scheme == "dark" else "light",
    )
    if token:
        page.goto(base + token)
    page.goto(base + picture.path)
    page.locator("h1").wait_for()
    if picture.name.startswith(("overview", "workers")):
        page.locator(".badge.ok", has_text="alive").first.wait_for()
    file = IMAGES / f"{picture.name}.png"
    page.wait_for_load_state("networkidle")
    page.screenshot(path=file, animations="disabled")
    page.close()
    size = file.stat().st_size
    print(f"{file.relative_to(Path.cwd())}: {size // 1000} kB")
    if size > MOST_BYTES:
        sys.exit(f"{file} is larger than {MOST_BYTES // 1000} kB.")


if __name__ == "__main__":
    main()
