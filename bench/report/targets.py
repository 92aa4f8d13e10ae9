"""The targets that runs have to meet, and whether they do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from report.figures import Json, Runs
from report.waited import commits_a_step

DATABASES = {"sqlite": "SQLite", "postgres": "Postgres"}

LEAST = "to save a row a step, and do nothing else, takes"

WITHOUT_INTENTS = (
    "without the intents, which [have a commit of their own]"
    "(decisions/0022-an-intent-has-its-own-commit.md), durably would take"
)


@dataclass(frozen=True)
class Target:
    """One line of the table of targets.

    Attributes:
        measured: None where a figure is missing.
        limit: of one that is missed, what stands against it, in words: a limit, or a choice.
    """

    what: str
    database: str
    target: str
    measured: str | None
    met: bool
    limit: str | None = None


def at_most(
    what: str, database: str, bound: float, measured: float | None, unit: str = ""
) -> Target:
    told = None if measured is None else f"{shown(measured)}{unit}"
    met = measured is not None and measured <= bound
    return Target(what, DATABASES.get(database, ""), f"≤ {shown(bound)}{unit}", told, met)


def at_least(what: str, database: str, bound: float, measured: float | None) -> Target:
    told = None if measured is None else shown(measured)
    met = measured is not None and measured >= bound
    return Target(what, DATABASES.get(database, ""), f"≥ {shown(bound)}", told, met)


def shown(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def of_runs(runs: Runs) -> Iterator[Target]:
    for policy, bounds in (("read", (1.2, 1.5)), ("once", (1.4, 1.8))):
        for database, bound in zip(DATABASES, bounds, strict=True):
            ratio = runs.ratio(f"{policy}-50", f"durably-{database}", "cpu")
            tools = "READ" if policy == "read" else "once"
            target = at_most(f"CPU / bare, 50 at once, {tools} tools", database, bound, ratio)
            yield limited(target, least(runs, policy, database, bound))
    for database in DATABASES:
        for what, workload, metric in (
            ("CPU, 50 at once", "read-50", "cpu"),
            ("wall, one at a time", "read-1", "wall"),
            ("wall, 50 at once", "read-50", "wall"),
        ):
            yield beside_best(runs, database, what, workload, metric)
    for database in DATABASES:
        for policy, bound in (("read", 1), ("idempotent", 1), ("once", 3), ("transactional", 2)):
            what = policy.upper() if policy in ("read", "idempotent") else policy
            waited = commits_a_step(database, policy)
            yield at_most(f"commits that a step waits for, {what}", database, bound, waited)
    what = "checkpoints a second, 500 at once / single commits a second"
    yield limited(at_least(what, "sqlite", 5, grouped(runs)), faster_than_python(runs))
    for database in DATABASES:
        target = at_most("a step of 1,000 / a step of 50", database, 1.2, growth(runs, database))
        yield limited(target, counted_growth(runs, f"durably-{database}"))
    for database in DATABASES:
        stored = runs.median("read-50", f"durably-{database}", "stored")
        history = runs.history_bytes()
        ratio = stored / history if stored is not None and history else None
        target = at_most("bytes stored / JSON of the final history", database, 1.5, ratio)
        yield limited(target, beyond_history(runs, database))
    for database in DATABASES:
        bare = runs.results["waiting"].get("bare")
        ours = runs.results["waiting"].get(f"durably-{database}")
        more = (ours - bare) / 1000 if ours is not None and bare is not None else None
        what = "memory of a run that waits for its model, beyond bare"
        yield at_most(what, database, 100, more, " KB")
    starting = {name: value * 1000 for name, value in runs.results["starting"].items()}
    what = "`import durably`, without pydantic_ai"
    yield at_most(what, "", 60, starting.get("import"), " ms")
    yield at_most("`durably --help`", "", 300, starting.get("help"), " ms")


def limited(target: Target, limit: str | None) -> Target:
    """The target, and the limit if it is missed."""
    return target if target.met else replace(target, limit=limit)


def least(runs: Runs, policy: str, database: str, bound: float) -> str | None:
    """What it takes to save each step and do nothing else: nobody who saves takes less."""
    workload = f"{policy}-50"
    ratio = runs.ratio(workload, f"least-{database}", "cpu")
    if ratio is None:
        return None
    pause = runs.ratio("read-50", "pause", "cpu")
    paused = f"; to wait at each step, and save nothing, {pause:.2f}" if pause else ""
    job = runs.ratio("read-50", "recipe-postgres", "cpu") if database == "postgres" else None
    beside = f"; an Oban job around a run, which saves no step, {job:.2f}" if job else ""
    slow = runs.ratio("slow-50", f"durably-{database}", "cpu") if workload == "read-50" else None
    waiting = f"; with a model that takes 300 ms durably takes {slow:.2f}" if slow else ""
    fewer = runs.ratio(workload, f"no-intents-{database}", "cpu")
    without = f"; {WITHOUT_INTENTS} {fewer:.2f}" if fewer else ""
    counted = _counted(runs, policy, database, bound)
    return f"{LEAST} {ratio:.2f}{paused}{beside}{waiting}{without}{counted}"


def _counted(runs: Runs, policy: str, database: str, bound: float) -> str:
    """The same in what no other load of the machine changes: instructions, or function calls."""
    found = {
        name: ratio
        for name in (f"durably-{database}", f"least-{database}", "hooks")
        if (ratio := runs.instructions(policy, name)) is not None
    }
    if len(found) == 3:
        ours, least, hooks = found.values()
        within = ", within the target" if ours <= bound else ""
        return (
            f"; counted in instructions, durably takes {ours:.2f}{within}, a row a step "
            f"{least:.2f}, and hooks that do nothing {hooks:.2f}"
        )
    calls: dict[str, float] = runs.results.get("calls", {}).get(f"{policy}-10", {})
    bare, ours = calls.get("bare"), calls.get(f"durably-{database}")
    if not bare or not ours:
        return ""
    return f"; counted, durably makes {ours / bare:.2f} times as many function calls"


def faster_than_python(runs: Runs) -> str | None:
    """How a bare run's steps, which write nothing, compare with single commits."""
    wall, commits = runs.median("read-500", "bare", "wall"), runs.limit("sqlite_commits")
    if not wall or not commits:
        return None
    ratio = runs.requests("read-500") / wall / commits
    return f"bare `agent.run`, which writes nothing, makes {ratio:.2g} steps a commit of this disk"


def beyond_history(runs: Runs, database: str) -> str | None:
    """What is stored beside the history: room in pages, and results with their calls as well."""
    history, workload = runs.history_bytes(), runs.workloads.get("read-50")
    if not history or workload is None:
        return None
    results = workload["steps"] * workload["tools"] * workload["size"]
    unused = runs.median("read-50", f"durably-{database}", "unused")
    room = f"{unused / history:.2f} is room in pages that no row fits in; " if unused else ""
    return (
        f"{room}{results / history:.2f} are the results of calls, which are kept with their calls "
        "and in the history: [why](decisions/0019-a-call-keeps-its-result.md)"
    )


def beside_best(runs: Runs, database: str, what: str, workload: str, metric: str) -> Target:
    """durably's overhead over the smallest of those that save every step as well."""
    overheads = {
        name: found
        for name in runs.peers(database)
        if (found := runs.overhead(workload, name, metric)) is not None
    }
    ours = runs.overhead(workload, f"durably-{database}", metric)
    best = min(overheads, key=lambda name: overheads[name], default=None)
    at_best = None if best is None else overheads[best]

    def beside(overhead: float | None) -> float | None:
        return overhead / at_best if overhead is not None and at_best and at_best > 0 else None

    who = f" ({runs.contestants[best]['label']})" if best else ""
    target = at_most(f"overhead / best peer's{who}: {what}", database, 1 / 3, beside(ours))
    floor = beside(runs.overhead(workload, f"least-{database}", metric))
    paused = beside(runs.overhead(workload, "pause", metric))
    limit = None if floor is None else f"{LEAST} {shown(floor)}"
    if limit and paused is not None:
        limit += f"; to wait for 3 ms at each step, and save nothing, {shown(paused)}"
    if limit and best is not None and metric == "cpu":
        limit += _counted_beside(runs, database, best)
    return limited(target, limit)


def _counted_beside(runs: Runs, database: str, peer: str) -> str:
    """The same in instructions, which are the same on a busy machine."""
    ours = runs.instructions_over("read", f"durably-{database}")
    least = runs.instructions_over("read", f"least-{database}")
    theirs = runs.instructions_over("read", peer)
    if ours is None or least is None or theirs is None or theirs <= 0:
        return ""
    return (
        f"; counted in instructions, durably takes {shown(ours / theirs)}, a row a step "
        f"{shown(least / theirs)}"
    )


def grouped(runs: Runs) -> float | None:
    wall, limit = runs.median("read-500", "durably-sqlite", "wall"), runs.limit("sqlite_commits")
    return runs.requests("read-500") / wall / limit if wall and limit else None


def growth(runs: Runs, database: str) -> float | None:
    """What durably adds to a step of a long run, over what it adds to one of a short run."""
    long = runs.overhead("steps-1000", f"durably-{database}", "wall")
    short = runs.overhead("steps-50", f"durably-{database}", "wall")
    if long is None or short is None or short <= 0:
        return None
    return (long / 1000) / (short / 50)


def counted_growth(runs: Runs, name: str) -> str | None:
    """How much more durably does at a late step, counted: clocks see bare's own growth alone."""
    calls: dict[str, dict[str, float]] = runs.results.get("calls", {})
    short, long = calls.get("read-50", {}), calls.get("read-500", {})
    bare = runs.median("steps-1000", "bare", "wall")
    if bare is None or not all({name, "bare"} <= found.keys() for found in (short, long)):
        return None
    # A run of a thousand steps takes as many seconds as a step of it takes milliseconds.
    few, many = short[name] - short["bare"], long[name] - long["bare"]
    timers = ", Oban's timers among them" if "postgres" in name else ""
    return (
        f"a bare step of 1,000 takes {shown(bare)} ms, and a clock sees little else; counted, "
        f"durably adds {few:,.0f} function calls to a step of 50 and {many:,.0f} to one of 500, "
        f"{many / few:.2f} ×{timers}"
    )


def of_part(part: Json) -> Iterator[Target]:
    """Those that another part of the benchmark found, as its results have them."""
    for one in part.get("targets", []):
        database = DATABASES.get(one["database"], one["database"])
        measured = shown(one["measured"]) if one["measured"] is not None else None
        yield Target(one["what"], database, one["target"], measured, one["met"], one.get("limit"))
