"""Commits that a step waits for, from the exact counts in tests/costs/baseline."""

from __future__ import annotations

import re
from pathlib import Path

BASELINE = Path(__file__).parents[2] / "tests/costs/baseline"

STEPS = 2
"""How many steps with a tool the runs there have more than the plain one."""


def commits_a_step(database: str, policy: str) -> float:
    """What a step with such a tool adds to a run with none."""
    return (_waited(database, policy) - _waited(database, "plain")) / STEPS


def _waited(database: str, scenario: str) -> int:
    found = re.match(
        r"commits waited for: (\d+)", (BASELINE / database / f"{scenario}.txt").read_text()
    )
    if found is None:
        raise ValueError(f"{database}/{scenario}.txt does not say what its run waits for.")
    return int(found[1])
