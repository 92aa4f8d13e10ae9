"""How long the overview and the other pages over many runs take to answer, over HTTP.

A ledger of 100,000 runs by default, copied from a few real ones over a week, of which some wait for
people; each page is asked for many times, and the median counts. Exits 1 if one takes longer than
200 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys
import tempfile
from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage

from durably import Durably, RetryPolicy, effects
from pages import Asked, dashboard, measure

WAITING = 500
"""Runs that wait for a person."""

COPY = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :copies)
INSERT INTO durably_runs ({columns})
SELECT {values} FROM numbers JOIN durably_runs r ON r.id = 1 + n % :templates
"""

SPREAD = {
    "key": "r.key || '/' || n",
    "agent": "'agent-' || n % 12",
    "queue": "'queue-' || n % 7",
    "model": "'vendor:model-' || n % 5",
    "tokens": "r.tokens + n % 900",
    "own_nanousd": "n % 3000000",
    "waited_ms": "n % 4000",
    "executed_ms": "n % 60000",
    "inserted_at": "{ago}",
    "scheduled_at": "{ago}",
    "attempted_at": "{ago}",
    "finished_at": "{ago}",
}
"""What differs from copy to copy, over the last week."""

AGO = (
    "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', "
    "'-' || ((:copies - n) * 604800.0 / :copies) || ' seconds')"
)

PAGES = [
    Asked("overview, 1 h", "?window=1h"),
    Asked("overview, 24 h by agent", "?window=24h&by=agent"),
    Asked("overview, 7 d", "?window=7d"),
    Asked("overview, 7 d by agent", "?window=7d&by=agent"),
    Asked("part: overview", "parts/overview"),
    Asked("runs", "runs"),
    Asked("runs: discarded", "runs?state=discarded"),
    Asked("runs: part of a key", "runs?key=fine/99"),
    Asked("runs: text that is nowhere", "runs?text=nowhere"),
    Asked("inbox", "inbox"),
    Asked("part: how many wait", "parts/inbox-count"),
    Asked("workers and queues", "workers"),
    Asked("audit", "audit"),
]


def clerk() -> Agent[None, str]:
    """An agent that answers, breaks, or asks before it pays: as its prompt says."""

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        (prompt,) = [p.content for p in messages[0].parts if p.part_kind == "user-prompt"]
        if prompt == "break":
            raise RuntimeError("no model today")
        usage = RequestUsage(input_tokens=900, output_tokens=90)
        asks = ToolCallPart("pay", {"cents": 900})
        return ModelResponse([asks] if prompt == "ask" else [TextPart("done")], usage=usage)

    agent = Agent(FunctionModel(answer, model_name="scripted"), name="clerk")

    @agent.tool_plain(metadata=effects.once(approve=True))
    def pay(cents: int) -> str:
        return "paid"

    return agent


async def fill(path: Path, runs: int) -> None:
    """A few real runs, and as many copies of those that are over as it takes."""
    async with Durably(f"sqlite:///{path}") as app:
        app.register(clerk(), max_attempts=1, retry=RetryPolicy(initial_seconds=0))
        for key in ("fine", "broken", "fine-too"):
            await app.enqueue("clerk", "break" if key == "broken" else "go", key=key)
        await app.drain()
        for n in range(WAITING):
            await app.enqueue("clerk", "ask", key=f"waits/{n}")
        await app.drain()
    copy(path, runs - WAITING - 3, templates=3)


def copy(path: Path, copies: int, templates: int) -> None:
    """Copy the first runs, each with what it was asked."""
    with sqlite3.connect(path) as ledger:
        names = [row[1] for row in ledger.execute("PRAGMA table_info(durably_runs)")][1:]
        values = [SPREAD.get(name, f"r.{name}").format(ago=AGO) for name in names]
        statement = COPY.format(columns=", ".join(names), values=", ".join(values))
        ledger.execute(statement, {"copies": copies, "templates": templates})
        ledger.execute(
            "INSERT INTO durably_inputs (run_id, prompt, args) SELECT r.id, i.prompt, i.args "
            "FROM durably_runs r, durably_inputs i WHERE r.key LIKE '%/%' "
            "AND r.key NOT LIKE 'waits/%' AND i.run_id = 1"
        )
        ledger.execute("ANALYZE")
    ledger.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=100_000)
    options.add_argument("--times", type=int, default=20)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        asyncio.run(fill(path, given.runs))
        print(f"{given.runs} runs, median of {given.times}:")
        with dashboard(f"sqlite:///{path}") as address:
            quick = measure(address, PAGES, given.times)
    sys.exit(0 if quick else 1)


if __name__ == "__main__":
    main()
