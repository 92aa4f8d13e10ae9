"""What a run costs is what it did cost: each transaction and statement, counted, never timed.

After a wished change, `make baseline` writes the figures anew; the diff shows what was saved.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest

from costs.measuring import measure
from costs.scenarios import SCENARIOS, Scenario

pytestmark = pytest.mark.by_database

BASELINE = Path(__file__).with_name("baseline")
WRITE_ANEW = os.environ.get("BASELINE") == "write"


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_run_asks_of_its_database_what_it_did(
    scenario: Scenario, database: str, url: str
) -> None:
    kept = BASELINE / database / f"{scenario.name}.txt"
    measured = await measure(scenario, url)
    if WRITE_ANEW:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("\n".join(measured) + "\n")
        measured = await measure(scenario, url)  # The same once more, or it is no figure to keep.
    expected = kept.read_text().splitlines() if kept.exists() else []
    assert measured == expected, told(expected, measured, f"{scenario.name}, {database}")


def told(expected: list[str], measured: list[str], what: str) -> str:
    """What has changed, for whoever changed it."""
    diff = difflib.unified_diff(
        expected, measured, f"{what}: as it was", f"{what}: now", n=1, lineterm=""
    )
    return "\n".join(
        ("this run costs something else now; if that is wished, `make baseline`", *diff)
    )
