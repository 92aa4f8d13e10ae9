"""durably beside other job queues: storing, starting, draining; in turns, one process each."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from queues.contestant import CONTESTANTS
from queues.databases import Databases
from queues.figures import Figures
from queues.sizes import Sizes

HERE = Path(__file__).parent.parent
PATIENCE_SECONDS = 900.0

STARTS = (("p50", 0.5, 5.0), ("p99", 0.99, 25.0))
"""What is told of starts: a share of them, and the milliseconds that they may take at most."""

type Seen = dict[tuple[str, str], list[dict[str, Any]]]
"""What each contestant's processes printed, by contestant and database, one for each repetition."""


def process(module: str, *args: str) -> Any:
    """What a process of the benchmark printed: JSON.

    Raises:
        RuntimeError: it failed; the last line that it said.
    """
    path = os.pathsep.join((str(HERE), str(HERE.parent / "tests")))
    try:
        ran = subprocess.run(
            [sys.executable, "-m", module, *args],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no end in {PATIENCE_SECONDS:g} s") from error
    if ran.returncode != 0:
        raise RuntimeError((ran.stderr.strip().splitlines() or ["no word"])[-1])
    return json.loads(ran.stdout)


def in_turns(
    module: str,
    databases: Databases,
    figures: Figures,
    times: int,
    *args: str,
    but: Collection[str] = (),
) -> Seen:
    """Everybody once, then everybody again: what disturbs the machine disturbs all alike."""
    seen: Seen = defaultdict(list)
    for turn in range(times):
        for name, on in CONTESTANTS.items():
            for database in on:
                what = f"{figures.part}: {name}, {database}"
                if name in but or what in figures.missing:
                    continue
                print(f"  {module} {turn + 1}/{times}: {name} on {database}", flush=True)
                try:
                    with databases.new(database) as url:
                        printed = process(module, name, url, *args)
                    seen[name, database].append(printed)
                except RuntimeError as error:
                    figures.missing[what] = str(error)
    return seen


def measure_starting(databases: Databases, figures: Figures, sizes: Sizes) -> None:
    amounts = str(sizes.starts), str(sizes.starting_seconds)
    _tell_starting(in_turns("queues.starting", databases, figures, sizes.turns, *amounts), figures)


def measure_draining(databases: Databases, figures: Figures, sizes: Sizes) -> None:
    amounts = str(sizes.many), str(sizes.jobs), str(sizes.limit)
    but = ("durably_asked",)
    drained = in_turns("queues.draining", databases, figures, sizes.turns, *amounts, but=but)
    _tell_draining(drained, figures, sizes)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def _tell_starting(seen: Seen, figures: Figures) -> None:
    for (name, database), repeated in seen.items():
        stored = [1000 * statistics.median(one["enqueue"]) for one in repeated]
        figures.add("enqueue, one", name, database, "ms", stored)
        for which, share, _ in STARTS:
            values = [1000 * percentile(one["start"], share) for one in repeated]
            figures.add(f"enqueue to start, {which}", name, database, "ms", values)
    aim_starting(figures)


def aim_starting(figures: Figures) -> None:
    """Compare with the targets what figures say of starts."""
    for database in ("sqlite", "postgres"):
        for which, _, most in STARTS:
            what = f"enqueue to start, {which}"
            if (median := figures.median(what, "durably", database)) is not None:
                figures.aim(
                    f"enqueue to start, idle worker, {which}",
                    database,
                    median,
                    at_most=most,
                    unit="ms",
                    limit=_least_start(figures, what) if database == "postgres" else None,
                )


def _least_start(figures: Figures, what: str) -> str | None:
    """How soon any run can start that an Oban job wakes."""
    said = [
        f"{which} {least:.1f} ms"
        for name, which in (
            ("oban", "the job of oban-py that wakes it takes"),
            ("oban_recorded", "one that first records that it has begun"),
        )
        if (least := figures.median(what, name, "postgres")) is not None
    ]
    return ", ".join(said) or None


def _tell_draining(seen: Seen, figures: Figures, sizes: Sizes) -> None:
    oban = seen.get(("oban", "postgres"), [])
    beside = statistics.median([one["a_second"] for one in oban]) if oban else None
    for (name, database), repeated in seen.items():
        rates = [one["a_second"] for one in repeated]
        ratio = None if beside is None else statistics.median(rates) / beside
        more = {"ratio": ratio, "ratio_to": "oban"}
        figures.add(f"no-op, {sizes.limit} at once", name, database, "a second", rates, **more)
        figures.add(
            "CPU of the worker, a no-op", name, database, "ms", [one["cpu_ms"] for one in repeated]
        )
        figures.add(
            f"enqueue_many of {sizes.many:,}",
            name,
            database,
            "jobs a second",
            [one["stored_a_second"] for one in repeated],
        )
    aim_draining(figures, f"no-op, {sizes.limit} at once")


def aim_draining(figures: Figures, what: str) -> None:
    """Compare with the targets what figures say of no-op runs."""
    beside = figures.median(what, "oban", "postgres")
    if beside is None:
        return
    for database, least in (("sqlite", 2.0), ("postgres", 0.6)):
        rate = figures.median(what, "durably", database)
        if rate is not None:
            figures.aim(
                "no-op runs a second / oban's jobs",
                database,
                rate / beside,
                at_least=least,
                limit=_limit(figures, database, beside, what),
            )


def _limit(figures: Figures, database: str, beside: float, what: str) -> str | None:
    """How near to the target any durable run can come, which has to pay for the agent's own.

    And how near durably comes without that, beside an Oban job that is on record as well.
    """
    bare = figures.median("bare agent.run, CPU", "pydantic-ai", "none")
    if bare is None:
        return None
    most = 1000 / bare
    said = [f"a bare agent.run alone makes {most:.0f} a second of one core, {most / beside:.2f} x"]
    if ours := figures.median(what, "durably_bare", database):
        said.append(f"without it durably makes {ours:,.0f} runs a second, {ours / beside:.2f} x")
    recorded = figures.median(what, "oban_recorded", "postgres")
    if database == "postgres" and recorded:
        said.append(
            f"an Oban job that records its beginning and its end in a row {recorded / beside:.2f} x"
        )
    return "; ".join(said)
