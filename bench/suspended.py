"""What waiting costs: a worker's memory, and claiming, beside ten thousand suspended runs or none.

Run it with `make bench-suspended`, which starts a PostgreSQL server of the tests' own. Both
ledgers of a database are measured in turns, so that a noisy machine disturbs both alike; read the
ratios.
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
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from durably import Durably
from durably.ledger import attempts, runs, waits, workers
from durably.ledger.operations import Operation
from durably.ledger.waits import Wait
from durably.ledger.written import Ask, CallOutcome, NewMessage, Step, ToolCall
from durably.lifecycle import EffectState
from durably.records import CallPosition, NewRun, RunRecord

IDLE_SECONDS = 15.0
"""How long an idle worker looks around before its memory is read: several looks of every duty."""


def application(url: str) -> Durably:
    return Durably(url, agents=[Agent(TestModel(), name="noop")])


# --- a ledger with suspended runs


def suspend_one(number: int) -> Operation[RunRecord]:
    """A run that waits for a person, a signal or a time, as real ones come to."""
    new = NewRun(key=f"waits-{number}", agent="noop", prompt='"hi"', queue="waiting")
    run, _ = yield from runs.insert(new)
    claimed = yield from attempts.claim_one("filler", run.id)
    assert claimed is not None
    claim, position = claimed.claim, CallPosition(1, 0)
    step = Step(messages=(NewMessage(0, "request", "{}"), NewMessage(1, "response", "{}")))
    if number % 3 == 0:
        asked = _call(position)
        ask = Ask("approval", "{}", 7 * 86_400.0, "wait")
        step = Step(
            step.usage,
            step.messages,
            (CallOutcome(asked, EffectState.AWAITING, asked=True, ask=ask),),
        )
        return (yield from attempts.suspend(claim, "effects", {"effects": ["1.0"]}, step))
    inside = position._replace(step="sleep")
    wait = Wait("timer", within_seconds=7 * 86_400.0) if number % 3 == 1 else Wait("signal", "go")
    yield from waits.begin(claim, _call(inside), wait)
    on = {"waits": [{"call_id": inside.call_id, "for": wait.kind}]}
    return (yield from attempts.suspend(claim, "waits", on, step))


def _call(position: CallPosition) -> ToolCall:
    return ToolCall(position, "tool", "call_0", "{}", "waits", None, f"k:{position.call_id}")


async def fill(url: str, count: int) -> None:
    async with application(url) as app:
        await app.ledger.write(workers.register, "filler", "filler", 1, {}, 3600.0)
        for first in range(0, count, 500):
            numbers = range(first, min(first + 500, count))
            await asyncio.gather(*(app.ledger.write(suspend_one, n) for n in numbers))
        await app.ledger.write(workers.remove, "filler")


# --- what is measured


async def claims(urls: list[str], rounds: int) -> list[list[float]]:
    """How long each claim takes, in seconds, by ledger; in turns."""
    apps = [application(url) for url in urls]
    found: list[list[float]] = [[] for _ in apps]
    for app in apps:
        await app.open()
        await app.ledger.write(workers.register, "claimer", "claimer", 1, {"agents": 1}, 3600.0)
    for number in range(rounds):
        for index, app in enumerate(apps):
            new = NewRun(key=f"claimed-{number}", agent="noop", prompt='"hi"')
            await app.ledger.write(runs.insert, new)
            began = time.perf_counter()
            (claimed,) = await app.ledger.write(attempts.claim, "claimer", "agents", 1)
            found[index].append(time.perf_counter() - began)
            await app.ledger.write(attempts.complete, claimed.claim, '"ok"', Step())
    for app in apps:
        await app.ledger.write(workers.remove, "claimer")
        await app.close()
    return found


def memory_of_worker(url: str) -> int:
    """Resident bytes of an idle worker process that has looked at its ledger for a while."""
    ran = subprocess.run(
        [sys.executable, __file__, "--worker", url], check=True, capture_output=True, text=True
    )
    return int(ran.stdout)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def be_worker(url: str) -> None:
    async with application(url) as app, app.worker({"agents": 20, "waiting": 20}):
        await asyncio.sleep(IDLE_SECONDS)
        print(resident_bytes())


# --- databases


@contextmanager
def ledgers(dialect: str, count: int) -> Generator[list[str]]:
    """The URLs of an empty ledger and of one with so many suspended runs."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        folder.chmod(0o755)  # A server that is started as root runs as somebody else.
        if dialect == "sqlite":
            urls = [f"sqlite:///{folder}/{ledger}.db" for ledger in ("empty", "full")]
        else:
            from support.postgres_run import Run

            run = Run(folder / "servers", os.getpid())
            servers.callback(run.clean)
            urls = [
                servers.enter_context(run.postgres.database(template=run.postgres.migrated))
                for _ in range(2)
            ]
        asyncio.run(fill(urls[0], 0))
        asyncio.run(fill(urls[1], count))
        yield urls


def measure(dialect: str, count: int, rounds: int) -> None:
    with ledgers(dialect, count) as urls:
        empty, full = asyncio.run(claims(urls, rounds))
        memory = [[memory_of_worker(url) for url in urls] for _ in range(3)]
    median = [statistics.median(times) * 1000 for times in (empty, full)]
    tail = [sorted(times)[int(len(times) * 0.99)] * 1000 for times in (empty, full)]
    beside = [statistics.median(pair[i] for pair in memory) / 1e6 for i in (0, 1)]
    print(f"{dialect}: {count:,} suspended runs, {rounds} claims in turns with an empty ledger")
    row("claim, median, ms", *median)
    row("claim, p99, ms", *tail)
    row("idle worker, MB", *beside)


def row(what: str, none: float, many: float) -> None:
    print(
        f"  {what:20} none {none:9.2f}   suspended {many:9.2f}   ratio {many / none:5.2f}",
        flush=True,
    )


def main() -> None:
    options: Any = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=10_000)
    options.add_argument("--claims", type=int, default=500)
    options.add_argument("--worker", metavar="URL", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.worker:
        asyncio.run(be_worker(given.worker))
        return
    for dialect in ("sqlite", "postgres"):
        measure(dialect, given.runs, given.claims)


if __name__ == "__main__":
    main()
