"""A ledger with a million ended and a hundred thousand suspended runs, beside a small one.

The small one has a hundred of each, so that a page is full there too. Both are asked in turns.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from durably import Durably
from durably.ledger import attempts, workers
from durably.ledger.written import Step
from overview import fill_postgres, fill_sqlite
from queues.beside import percentile, process
from queues.databases import Databases
from queues.figures import Figures
from queues.sizes import Sizes

SMALL = 100
PAGE = 50
WORKER = "claimer"


def measure(databases: Databases, figures: Figures, sizes: Sizes) -> None:
    for database in ("sqlite", "postgres"):
        with ExitStack() as stack:
            urls = [stack.enter_context(databases.new(database)) for _ in range(2)]
            _fill(urls[0], SMALL, SMALL)
            print(f"  {database}: filling a ledger with {sizes.ended:,} runs", flush=True)
            _fill(urls[1], sizes.ended, sizes.suspended)
            for turn in range(sizes.turns + 1):
                took = asyncio.run(_ask(urls, sizes.looks))
                if turn:  # The first is the warm-up of files and caches.
                    _seen[database].append(took)
            _tell(database, figures, sizes)
            _work(database, urls, figures, sizes)


type Took = dict[str, tuple[list[float], list[float]]]
"""By question: seconds in the small ledger and in the large one."""

_seen: dict[str, list[Took]] = defaultdict(list)


def _fill(url: str, ended: int, suspended: int) -> None:
    now = datetime.now(UTC) + timedelta(seconds=1)
    if url.startswith("sqlite"):
        asyncio.run(_open(url))
        fill_sqlite(Path(url.removeprefix("sqlite:///")), ended, suspended, now)
    else:
        fill_postgres(url, ended, suspended, now)


async def _open(url: str) -> None:
    async with Durably(url):
        pass


async def _ask(urls: list[str], looks: int) -> Took:
    took: Took = defaultdict(lambda: ([], []))
    async with AsyncExitStack() as stack:
        apps = [await stack.enter_async_context(_opened(url)) for url in urls]
        for _ in range(looks):
            for question, ask in QUESTIONS.items():
                for place, app in enumerate(apps):
                    took[question][place].append(await _timed(ask, app))
            for app in apps:
                await _complete(app)
    return took


@asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[Durably]:
    async with Durably(url) as app:
        await app.ledger.write(workers.register, WORKER, WORKER, 1, {"agents": 1}, 3600.0)
        yield app
        await app.ledger.write(workers.remove, WORKER)


async def _timed(ask: Callable[[Durably], Awaitable[object]], app: Durably) -> float:
    began = time.perf_counter()
    await ask(app)
    return time.perf_counter() - began


async def _claim(app: Durably) -> None:
    (_,) = await app.ledger.write(attempts.claim, WORKER, "agents", 1)


async def _complete(app: Durably) -> None:
    """End what was claimed, so that each claim finds one run."""
    for run in await app.runs(state="executing"):
        await app.ledger.write(attempts.complete, run.record.claim, '"ok"', Step())


QUESTIONS: dict[str, Callable[[Durably], Awaitable[object]]] = {
    "enqueue": lambda app: app.enqueue("noop", "hi"),
    "claim": _claim,
    "inbox": lambda app: app.inbox(limit=PAGE),
    "list": lambda app: app.runs(limit=PAGE),
}


def _work(database: str, urls: list[str], figures: Figures, sizes: Sizes) -> None:
    """Start runs for an idle worker, then store and drain many, in each ledger in turns."""
    starts = str(sizes.starts), str(sizes.starting_seconds)
    jobs = str(sizes.jobs), str(sizes.jobs), str(sizes.limit)
    started: list[list[dict[str, list[float]]]] = [[], []]
    drained: list[list[dict[str, float]]] = [[], []]
    for turn in range(sizes.turns):
        for place, url in enumerate(urls):
            print(f"  {database}: working, turn {turn + 1}/{sizes.turns}", flush=True)
            started[place].append(process("queues.starting", "durably", url, *starts))
            drained[place].append(process("queues.draining", "durably_bare", url, *jobs))
    for what, share in (("p50", 0.5), ("p99", 0.99)):
        both = [[1000 * percentile(one["start"], share) for one in each] for each in started]
        _compare(f"enqueue to start, {what}", "durably", database, "ms", both, figures, sizes)
    for what, unit, name in (
        (f"no-op, {sizes.limit} at once", "a second", "a_second"),
        (f"enqueue_many of {sizes.jobs:,}", "jobs a second", "stored_a_second"),
    ):
        both = [[one[name] for one in each] for each in drained]
        _compare(what, "durably_bare", database, unit, both, figures, sizes)


def _compare(
    what: str,
    who: str,
    database: str,
    unit: str,
    both: list[list[float]],
    figures: Figures,
    sizes: Sizes,
) -> float:
    """Keep what was measured in the small ledger and in the large one; their ratio's median."""
    small = figures.add(f"{what}, small ledger", who, database, unit, both[0])
    ratio = statistics.median(after / before for before, after in zip(*both, strict=True))
    figures.add(
        f"{what}, {sizes.ended + sizes.suspended:,} runs",
        who,
        database,
        unit,
        both[1],
        ratio=ratio,
        ratio_to=f"the small ledger's, {small:.2f} {unit}",
    )
    return ratio


def _tell(database: str, figures: Figures, sizes: Sizes) -> None:
    many = sizes.ended + sizes.suspended
    for question in QUESTIONS:
        tails = [
            [1000 * percentile(took[question][place], 0.99) for took in _seen[database]]
            for place in (0, 1)
        ]
        what = f"{question}, p99"
        ratio = _compare(what, "durably", database, "ms", tails, figures, sizes)
        figures.aim(f"{what}, {many:,} runs / small", database, ratio, at_most=2.0)
