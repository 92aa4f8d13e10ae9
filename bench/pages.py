"""How long the dashboard's pages take to answer, over HTTP, from a server of its own.

A run of 500 steps, made by the real agent loop; each page and part of a page is asked for many
times, and the median counts. Exits 1 if a page takes longer than 200 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage, UsageLimits

from durably import Durably, effects

LIMIT_MS = 200.0

TEXT = "Each step says **something** about [what it found](https://example.com), and why.\n\n" * 3


class Asked(NamedTuple):
    """An address that is measured, and whether somebody waits for the whole of it as a page."""

    what: str
    path: str


# --- a run of many steps


def clerk(steps: int) -> Agent[None, str]:
    """An agent whose model calls a tool in each step, and talks while it does."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        done = sum(isinstance(message, ModelResponse) for message in messages)
        usage = RequestUsage(input_tokens=1000 + 50 * done, output_tokens=80)
        parts = [TextPart(TEXT), ToolCallPart("look_up", {"order": done})]
        return ModelResponse(parts if done < steps else [TextPart("All is done.")], usage=usage)

    agent = Agent(FunctionModel(answer, model_name="scripted"), name="clerk")

    @agent.tool_plain(metadata=effects.once())
    def look_up(order: int) -> dict[str, object]:
        return {"order": order, "items": [{"product": f"lamp {n}", "cents": n} for n in range(20)]}

    return agent


async def fill(url: str, steps: int) -> None:
    """Make the run, with the real thing."""
    async with Durably(url) as app:
        app.register(clerk(steps), usage_limits=UsageLimits(request_limit=None))
        await app.run("clerk", "Do all of it.", key=f"steps/{steps}")


def run_pages(key: str) -> list[Asked]:
    """The page of a run, and its parts."""
    path = quote(key)
    tabs = ("conversation", "timeline", "effects", "attempts", "usage", "events", "raw")
    pages = [
        Asked("a run" if t == "conversation" else f"a run: {t}", f"runs/{path}?tab={t}")
        for t in tabs
    ]
    parts = [Asked(f"part: {t}", f"parts/tab/{t}/{path}") for t in tabs]
    return [
        *pages,
        *parts,
        Asked("part: head", f"parts/head/{path}"),
        Asked("part: earlier messages", f"parts/earlier/{path}?before=400"),
        Asked("part: saved", f"parts/saved/{path}"),
    ]


# --- measuring


@contextmanager
def dashboard(url: str) -> Generator[str]:
    """The address of a dashboard, in a process of its own."""
    server = subprocess.Popen(
        [sys.executable, "-m", "durably", "web", "--url", url, "--no-login", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"DURABLY_APP": ""},
    )
    try:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        yield next(line.split()[1] for line in lines if line.startswith("Dashboard"))
    finally:
        server.terminate()
        server.wait()


def measure(address: str, asked: list[Asked], times: int) -> bool:
    """Ask for each in turns; print the medians. True if none takes too long."""
    found: dict[Asked, list[float]] = {one: [] for one in asked}
    sizes: dict[Asked, int] = {}
    for _ in range(times + 1):
        for one in asked:
            began = time.perf_counter()
            with urllib.request.urlopen(address + one.path) as answer:
                sizes[one] = len(answer.read())
            found[one].append((time.perf_counter() - began) * 1000)
    quick = True
    for one, took in found.items():
        median = statistics.median(took[1:])  # The first compiles the templates.
        quick &= median <= LIMIT_MS
        print(f"  {one.what:28} {median:8.1f} ms   {sizes[one] / 1000:8.0f} kB", flush=True)
    return quick


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--steps", type=int, default=500)
    options.add_argument("--times", type=int, default=20)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder)}/ledger.db"
        asyncio.run(fill(url, given.steps))
        print(f"A run of {given.steps} steps, median of {given.times}:")
        with dashboard(url) as address:
            quick = measure(address, run_pages(f"steps/{given.steps}"), given.times)
    sys.exit(0 if quick else 1)


if __name__ == "__main__":
    main()
