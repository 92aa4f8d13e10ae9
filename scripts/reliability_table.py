"""Writes the table of the matrix into docs/reliability.md: ``reliability_table.py NOTES``.

Owns how the table reads; what was proved is noted by the tests of `make crash`, which calls this.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from support.postgres_server import programs

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- the matrix begins: make crash writes it -->", "<!-- the matrix ends -->"

WHOLE = "make crash"

DATABASES = {"sqlite": "SQLite", "postgres": "PostgreSQL"}

FAULTS = (
    "process killed",
    "machine frozen past the lease",
    "two workers holding one run",
    "database killed and restarted",
    "connection cut",
    "database locked by another process",
    "disk full",
    "tool hangs until its time is over",
    "tool hangs while its run is cancelled",
    "tool hangs while its worker is told to leave",
    "clock set forward by an hour",
    "clock set back by an hour",
    "workers' clocks an hour apart",
    "deploy with other tools, prompt and model",
)
"""What must be there, and in which order; other faults come after these."""

ONLY_WHOLE = {"tool hangs until its time is over"}
"""What a sample leaves out: it takes that time."""

STANDS_FOR = {"disk said to be full": "disk full"}
"""Faults that are enough where the real one cannot be made."""

NOT_THERE = {
    ("database killed and restarted", "sqlite"): "there is no server to kill",
    ("connection cut", "sqlite"): "there is no connection to cut",
    ("database locked by another process", "postgres"): "nobody can lock all of it",
    ("workers' clocks an hour apart", "postgres"): "the one clock is the server's",
}
"""Faults that a database cannot have, and why."""

MOMENTS = (
    *("any", "enqueue", "dispatch", "job", "claim", "checkpoint", "model", "delta", "intent"),
    *("tool", "effect", "transaction", "reconcile", "outcome", "output", "wait", "signal"),
    *("child", "expiry", "decision", "settle", "end", "commit"),
)
"""The order in which a run comes to them."""

POLICIES = (
    *("all", "READ", "IDEMPOTENT", "once, ask", "once, tell", "once, retry", "once, reconcile"),
    *("once, approve", "TRANSACTIONAL"),
)


@dataclass(frozen=True)
class Proved:
    """One line of a test's notes, as `matrix.record.proved` writes it."""

    fault: str
    moment: str
    policy: str
    database: str
    times: int


def main(notes: Path, command: str) -> None:
    proved = [Proved(*json.loads(line)) for line in notes.read_text().splitlines()]
    if missing := missing_from(proved, whole=command == WHOLE):
        sys.exit("No table: nothing was proved about " + "; ".join(missing) + ".")
    PAGE.write_text(with_table(PAGE.read_text(), table_of(proved, command)))
    print(f"{PAGE.name}: {sum(p.times for p in proved)} faults survived")


def missing_from(proved: list[Proved], *, whole: bool) -> list[str]:
    """The faults that must be in the table, and are not; for a sample one database is enough."""
    if not whole:
        there = {p.fault for p in proved} | ONLY_WHOLE
        return [fault for fault in FAULTS if fault not in there]
    on_each = {(STANDS_FOR.get(p.fault, p.fault), p.database) for p in proved}
    return [
        f"{fault} on {name}"
        for fault in FAULTS
        for database, name in DATABASES.items()
        if (fault, database) not in on_each and (fault, database) not in NOT_THERE
    ]


def with_table(page: str, table: str) -> str:
    """The page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert rest and after, f"{PAGE} has no marks for the table"
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def table_of(proved: list[Proved], command: str) -> str:
    survived: Counter[tuple[str, str]] = Counter()
    for p in proved:
        survived[p.fault, p.database] += p.times
    lines = [
        f"{sum(survived.values())} faults, each survived with every promise kept: `{command}` with "
        f"{versions()}.",
        "",
        "| Fault | SQLite | PostgreSQL | Moments | Policies |",
        "|---|--:|--:|---|---|",
    ]
    for fault in _in_order({p.fault for p in proved}, FAULTS):
        counts = [_cell(survived, fault, database) for database in DATABASES]
        moments = _in_order({p.moment for p in proved if p.fault == fault}, MOMENTS)
        policies = _in_order({p.policy for p in proved if p.fault == fault}, POLICIES)
        cells = [fault, *counts, "; ".join(moments), "; ".join(policies)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_grid(proved)])


def _cell(survived: Counter[tuple[str, str]], fault: str, database: str) -> str:
    if why := NOT_THERE.get((fault, database)):
        return f"– ({why})"
    return str(survived[fault, database] or "–")


def _grid(proved: list[Proved]) -> list[str]:
    """How often a process was killed at each moment, for each policy."""
    kills: dict[str, Counter[str]] = defaultdict(Counter)
    for p in proved:
        if p.fault == "process killed":
            kills[p.moment][p.policy] += p.times
    policies = _in_order({policy for found in kills.values() for policy in found}, POLICIES)
    lines = [
        "Of these, the processes killed, by the moment that they were killed at (before it, after "
        "it, and each time that the run came to it) and the policies of the run's tools:",
        "",
        f"| Moment | {' | '.join(policies)} |",
        "|---|" + "--:|" * len(policies),
    ]
    for moment in _in_order(kills, MOMENTS):
        counts = " | ".join(str(kills[moment][policy] or "") for policy in policies)
        lines.append(f"| {moment} | {counts} |")
    return lines


def _in_order(found: Iterable[str], order: tuple[str, ...]) -> list[str]:
    return sorted(found, key=lambda name: (*_place(name, order), name))


def _place(name: str, order: tuple[str, ...]) -> tuple[int]:
    return (order.index(name) if name in order else len(order),)


def versions() -> str:
    """What the faults were survived with."""
    says = [programs() / "postgres", "--version"]
    postgres = subprocess.run(says, capture_output=True, text=True, check=True).stdout.split()[-1]
    return (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"PostgreSQL {postgres}, pydantic-ai-slim {version('pydantic-ai-slim')} and "
        f"oban {version('oban')}"
    )


if __name__ == "__main__":
    *options, notes = sys.argv[1:]
    main(Path(notes), f"{WHOLE} SAMPLE=1" if options == ["--sample"] else WHOLE)
