"""docs/benchmarks.md, of whatever parts have results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from report import tables
from report.figures import Json, Runs
from report.targets import DATABASES, Target, of_part, of_runs

TITLES = {"queues": "Queue and ledger"}

NOTES = {
    "queues": "Two processes: one enqueues, the other works. A job starts with its body, a run "
    "with the first of the\napplication's code, which makes its deps; `durably_asked` is durably "
    "until the model is asked, after\npydantic-ai's set-up of a run. `durably_bare` is durably's "
    "queue and ledger with no agent in it;\n`oban_recorded` is an Oban job that writes down in a "
    "row that it has begun, and that it has ended.\nDBOS and Absurd store many jobs one by one: "
    "2,000 of them, where the others store 10,000.\n\n"
    "Before a run starts there are two commits, one after the other: one that stores it and one "
    "that claims it.\nOn SQLite they, and waking the other process, are most of the time; "
    "on PostgreSQL there is the\nOban job besides. A run without an agent is claimed, begun, ended "
    "and told of in four tables, where a\njob is a row of one: that is what it takes more than a "
    "job does.\n"
}
"""What the figures of a part mean."""

DESCRIPTIONS = {
    "read-50": "READ tools, 50 runs at once",
    "once-50": "once tools, 50 runs at once",
    "transactional-50": "transactional tools, 50 runs at once",
    "read-1": "READ tools, one run at a time",
    "read-500": "READ tools, 500 runs at once",
    "parallel-50": "three parallel tools a step, 50 runs at once",
    "large-4": "messages of 100 KB, 4 runs at once",
    "slow-50": "a model that takes 300 ms, 50 runs at once",
    "slow-500": "a model that takes 300 ms, 500 runs at once",
    "steps-50": "50 steps, one run at a time",
    "steps-200": "200 steps, one run at a time",
    "steps-1000": "1,000 steps, one run at a time",
}

PICTURES = {
    "read-50": ("CPU of a run, by contestant", "images/benchmarks/cpu.svg"),
    "read-1": ("Time of a run, by contestant", "images/benchmarks/wall.svg"),
    "steps-1000": ("Time of a step, by the number of steps", "images/benchmarks/steps.svg"),
}
"""What plots show and where they are, beside the page, by the workload that they need."""

INTRODUCTION = """\
# Benchmarks

What a durable run costs beside a bare `agent.run`, and beside what you might pick instead. All
contestants run the same script in turns, each in a fresh process, in one run of the benchmark;
figures are medians, and ratios (×) are to the same runs with nothing stored. **Every figure is with
full durability**: `synchronous=FULL`, `synchronous_commit=on`, save before acting.
"""


def parts(folder: Path) -> dict[str, Json]:
    """The results that there are, by part."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}


def page(found: dict[str, Json]) -> str:
    """The whole page."""
    runs = Runs(found["runs"]) if "runs" in found else None
    others = {name: part for name, part in found.items() if name != "runs"}
    return "\n".join(
        [
            INTRODUCTION,
            *(in_short(runs) if runs else ["Runs have not been measured yet.\n"]),
            *targets(runs, others),
            *(everything(runs) if runs else []),
            *(section for name, part in others.items() for section in of_other(name, part)),
            *(made_with(runs) if runs else []),
        ]
    )


def in_short(runs: Runs) -> Iterator[str]:
    yield (
        "## In short\n\n"
        "Runs of ten steps, each a model request with one tool call and 1 KB of text, then an "
        "answer; the\nmodel takes no time. CPU is the process's own, with 50 runs at once.\n"
    )
    yield tables.headline(runs)
    yield from with_a_model(runs)
    for workload, (what, path) in PICTURES.items():
        if runs.measured(workload):
            yield f"![{what}]({path})\n"


def with_a_model(runs: Runs) -> Iterator[str]:
    """The same where the model takes its time: what a user sees."""
    sqlite, postgres = (runs.ratio("slow-50", f"durably-{d}", "wall") for d in DATABASES)
    if sqlite is not None and postgres is not None:
        yield (
            "With a model that takes 300 ms, and the 50 runs waiting for it at once, such a run "
            f"takes {sqlite:.2f} times as long on\nSQLite as with nothing stored, and "
            f"{postgres:.2f} times on Postgres.\n"
        )


def targets(runs: Runs | None, others: dict[str, Json]) -> Iterator[str]:
    found: list[Target] = list(of_runs(runs)) if runs else []
    found += [target for part in others.values() for target in of_part(part)]
    met = sum(target.met for target in found)
    yield f"## Targets\n\n{met} of {len(found)} are met.\n"
    yield tables.targets(found)
    yield (
        "A *step* is a model request with its tool calls. The *best peer* has the smallest "
        "overhead over\nthe same loop with nothing stored, of those that save every step: the "
        "plain recipe saves only\nthe end. *A row a step and no more* is nothing that one could "
        "use: it shows what saving takes\nat least; *3 ms of waiting a step* stores nothing, and "
        "waits as for a commit: runs that give way to\neach other at every step take more than "
        "runs that never do. Commits that a step waits for are\ncounted by a test, `tests/costs`; "
        "the other tables have all that reach the database for a step more,\nheartbeats and "
        "notices among them. Instructions are the process's own, not the kernel's; under Valgrind, "
        "which counts them,\nwhat goes by the clock comes some forty times as often.\n"
    )


def everything(runs: Runs) -> Iterator[str]:
    yield "## Limits of the machine\n"
    yield tables.limits(runs)
    yield "## Everything that was measured\n"
    yield details("Commits a step, counted", tables.commits(runs))
    if runs.results.get("calls"):
        yield details("Function calls a step, counted", tables.calls(runs))
    if runs.results.get("instructions"):
        yield details(
            "Instructions a run, counted: ten steps, 20 runs at once, the process's own",
            tables.instructions(runs),
        )
    for name in runs.workloads:
        yield details(DESCRIPTIONS.get(name, name), tables.workload(runs, name))
    if runs.results["missing"]:
        rows = ([one["what"], one["contestant"], one["why"]] for one in runs.results["missing"])
        yield details("Not measured", tables.left(["what", "who", "why"], rows))
    yield (
        "KB written: what the process had written to the disk on SQLite, the write-ahead log on "
        "PostgreSQL.\nKB stored: what the file or the database grew by, with indexes. p99 is of a "
        "run, from its start or\nits enqueuing to its result.\n"
    )


def of_other(name: str, part: Json) -> Iterator[str]:
    title = TITLES.get(name, name)
    yield f"## {title}\n"
    if name in NOTES:
        yield NOTES[name]
    yield details("Everything that was measured", tables.measurements(part))
    if missing := part.get("missing"):
        rows = ([what, why] for what, why in missing.items())
        yield details("Not measured", tables.left(["what", "why"], rows))


def made_with(runs: Runs) -> Iterator[str]:
    results = runs.results
    yield (
        "## How each of them ran\n\nOne file each in "
        "[bench/runs/contestants](../bench/runs/contestants); corrections are welcome.\n"
    )
    rows = ([one["label"], one["how"]] for one in runs.contestants.values())
    yield tables.left(["", "how"], rows)
    yield f"## On what\n\nMade with `{results['command']}`, which takes its own peers along.\n"
    yield tables.left(["machine", ""], ([*pair] for pair in results["machine"].items()))
    yield tables.left(["version", ""], ([*pair] for pair in results["versions"].items()))


def details(summary: str, text: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n</details>\n"
