"""The table of the matrix names what the tests prove, so that a stale one is noticed."""

from __future__ import annotations

import re
from pathlib import Path

from matrix.faults import ALL, OF_TOOLS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HEAD = "| Fault | SQLite |"


def test_table_has_every_fault_that_the_tests_prove() -> None:
    """Or, if a sample wrote it, some of each kind."""
    found = faults_of_the_table()
    if is_a_sample():
        assert len(found & set(OF_TOOLS)) > 5 < len(found - set(OF_TOOLS))
        return
    missing = ALL - found
    assert not missing, f"not in the table: {sorted(missing)}; run `make crash` to write it anew"


def test_table_has_no_fault_that_no_test_proves() -> None:
    gone = faults_of_the_table() - ALL
    assert not gone, f"no test proves {sorted(gone)} any more; run `make crash` to write it anew"


def is_a_sample() -> bool:
    (said,) = re.findall(r"survived with every promise kept: `([^`]+)`", PAGE.read_text())
    assert said in ("make crash", "make crash SAMPLE=1"), said
    return said != "make crash"


def faults_of_the_table() -> set[str]:
    rows = PAGE.read_text().partition(HEAD)[2].partition("\n\n")[0].splitlines()
    return {row.split("|")[1].strip() for row in rows if row.startswith("| ")}
