"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from report.figures import Json, Runs, Spread
from report.targets import Target, shown

NONE = "–"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, all others are figures."""
    lines = [row(head), row(["---", *("---:" for _ in head[1:])])]
    return "\n".join([*lines, *(row(cells) for cells in rows)]) + "\n"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f} ×"


def milliseconds(seconds: float | None) -> str:
    return NONE if seconds is None else shown(seconds * 1000)


def kilobytes(size: float | None) -> str:
    return NONE if size is None else shown(size / 1000)


def headline(runs: Runs) -> str:
    """Runs of ten steps, one READ tool each, 1 KB: what they cost beside nothing stored."""
    head = (
        *("", "CPU", "CPU, ms a run", "database's", "wall, one at a time", "wall, 50 at once"),
        *("commits a step", "KB written a step", "KB stored a run"),
    )
    return table(head, (headline_row(runs, name) for name in runs.there_for("read")))


def headline_row(runs: Runs, name: str) -> list[str]:
    commits = runs.results["commits"].get("read", {}).get(name)
    written = runs.median("read-50", name, "written")
    label = str(runs.contestants[name]["label"])
    return [
        f"**{label}**" if name.startswith("durably") else label,
        times(runs.ratio("read-50", name, "cpu")),
        milliseconds(runs.median("read-50", name, "cpu")),
        milliseconds(runs.median("read-50", name, "database_cpu")),
        times(runs.ratio("read-1", name, "wall")),
        times(runs.ratio("read-50", name, "wall")),
        NONE if commits is None else _a_step(commits),
        kilobytes(None if written is None else written / runs.requests("read-50")),
        kilobytes(runs.median("read-50", name, "stored")),
    ]


def targets(found: Iterable[Target]) -> str:
    lines = [
        row(["what", "on", "target", "measured", ""]),
        row(["---", "---", "---:", "---:", "---"]),
    ]
    for one in found:
        verdict = "not measured" if one.measured is None else "met" if one.met else "**missed**"
        if one.limit:
            verdict += f": {one.limit}"
        cells = [one.what, one.database, one.target, one.measured or NONE, verdict]
        lines.append(row(cells))
    return "\n".join(lines) + "\n"


def workload(runs: Runs, name: str) -> str:
    """Everything that was measured of one workload."""
    head = (
        *("", "wall / bare", "wall, ms a run", "CPU / bare", "CPU, ms a run", "database's CPU, ms"),
        *("p99 of a run, ms", "KB written a step", "KB stored a run", "runs × turns"),
    )
    return table(head, workload_rows(runs, name))


def workload_rows(runs: Runs, workload: str) -> Iterator[list[str]]:
    for name, one in runs.contestants.items():
        samples = runs.samples(workload, name)
        if not samples:
            continue
        written = runs.median(workload, name, "written")
        yield [
            str(one["label"]),
            times(runs.ratio(workload, name, "wall")),
            between(runs.spread(workload, name, "wall")),
            times(runs.ratio(workload, name, "cpu")),
            between(runs.spread(workload, name, "cpu")),
            milliseconds(runs.median(workload, name, "database_cpu")),
            milliseconds(runs.median(workload, name, "p99")),
            kilobytes(None if written is None else written / runs.requests(workload)),
            kilobytes(runs.median(workload, name, "stored")),
            f"{samples[0]['runs']} × {len(samples)}",
        ]


def between(spread: Spread | None) -> str:
    """A median in milliseconds, with its spread if there is any."""
    if spread is None:
        return NONE
    if spread.low == spread.high:
        return milliseconds(spread.median)
    low, high = milliseconds(spread.low), milliseconds(spread.high)
    return f"{milliseconds(spread.median)} ({low}–{high})"


def commits(runs: Runs) -> str:
    """Commits a step, by what the tools declare."""
    found: dict[str, dict[str, float]] = runs.results["commits"]
    rows = (
        [
            str(one["label"]),
            *(_a_step(found[p][name]) if name in found[p] else NONE for p in found),
        ]
        for name, one in runs.contestants.items()
        if any(name in by_name for by_name in found.values())
    )
    return table(["", *found], rows)


def calls(runs: Runs) -> str:
    """Function calls a step, by policy and steps of a run."""
    found: dict[str, dict[str, float]] = runs.results.get("calls", {})
    rows = (
        [
            str(one["label"]),
            *(f"{found[s][name]:,.0f}" if name in found[s] else NONE for s in found),
        ]
        for name, one in runs.contestants.items()
        if any(name in by_name for by_name in found.values())
    )
    kinds = [kind.rsplit("-", 1) for kind in found]
    return table(["", *(f"{policy}, {int(steps):,} steps a run" for policy, steps in kinds)], rows)


def instructions(runs: Runs) -> str:
    """Instructions a run, in millions, and to a bare run's, by policy."""
    found: dict[str, dict[str, float]] = runs.results["instructions"]

    def cells(policy: str, name: str) -> Iterator[str]:
        ratio = runs.instructions(policy, name)
        yield NONE if ratio is None else f"{ratio:.3f} ×"
        yield NONE if ratio is None else f"{found[policy][name] / 1e6:.1f}"

    rows = (
        [str(one["label"]), *(cell for policy in found for cell in cells(policy, name))]
        for name, one in runs.contestants.items()
        if any(name in by_name for by_name in found.values())
    )
    heads = (head for policy in found for head in (f"{policy} / bare", f"{policy}, millions"))
    return table(["", *heads], rows)


def limits(runs: Runs) -> str:
    codec = [one["codec"] for one in runs.results["limits"]]
    microseconds = [round((one["dump"] + one["load"]) * 1e6) for one in codec]
    rows = [
        [
            "SQLite, a row of 1 KB a commit, one after the other",
            per_second(runs, "sqlite_commits"),
        ],
        ["PostgreSQL, the same, pgbench with 1 client", per_second(runs, "postgres_commits_1")],
        ["PostgreSQL, the same, pgbench with 50 clients", per_second(runs, "postgres_commits_50")],
    ]
    if microseconds:
        what = f"the final history as JSON, {codec[0]['bytes'] / 1000:.0f} KB, written and read"
        rows.append([what, f"{min(microseconds):,} µs of CPU"])
    return table(["what the machine can do at most", ""], rows)


def per_second(runs: Runs, name: str) -> str:
    found = runs.limit(name)
    return NONE if found is None else f"{found:,.0f} commits a second"


def measurements(part: Json) -> str:
    """Those of another part, as its results have them."""
    head = ["", "who", "on", "median", "lowest–highest", "ratio"]
    rows = (
        [
            one["what"],
            one["contestant"],
            one["database"],
            f"{shown(one['median'])} {one['unit']}",
            f"{shown(one['low'])}–{shown(one['high'])}",
            f"{one['ratio']:.2f} × {one['ratio_to']}" if one.get("ratio") is not None else NONE,
        ]
        for one in part.get("measurements", [])
    )
    return table(head, rows)


def left(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of text."""
    return "\n".join([row(head), row(["---"] * len(head)), *(row(cells) for cells in rows)]) + "\n"


def _a_step(commits: float) -> str:
    """Where there are none, heartbeats before and after may make it a little less."""
    return f"{max(commits, 0.0):.1f}"
