"""A worker's memory beside many suspended runs, and beside none."""

from __future__ import annotations

import asyncio

from queues.databases import Databases
from queues.figures import Figures
from queues.sizes import Sizes
from suspended import fill, memory_of_worker

SPREAD_MB = 1.0
"""What two idle workers on the same ledger differ by anyway."""


def measure(databases: Databases, figures: Figures, sizes: Sizes) -> None:
    for database in ("sqlite", "postgres"):
        with databases.new(database) as empty, databases.new(database) as full:
            asyncio.run(fill(empty, 0))
            asyncio.run(fill(full, sizes.waiting))
            turns = range(min(sizes.turns, 3))
            seen = [(memory_of_worker(empty), memory_of_worker(full)) for _ in turns]
        beyond = [(with_runs - without) / 1e6 for without, with_runs in seen]
        what = f"worker memory, {sizes.waiting:,} suspended"
        figures.add(f"{what}: none", "durably", database, "MB", [a / 1e6 for a, _ in seen])
        more = figures.add(f"{what}: beyond that", "durably", database, "MB", beyond)
        figures.aim(what, database, more, at_most=SPREAD_MB, unit="MB, which is noise")
