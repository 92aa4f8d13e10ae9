"""The table of the matrix names what the tests prove, so that a stale one is noticed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
HEAD = "| Fault | SQLite |"


def test_table_has_every_fault_that_the_tests_prove() -> None:
    named = {fault for tree in trees() for fault in proved_in(tree)}
    assert named, "the tests name faults"
    missing = named - faults_of_the_table()
    assert not missing, f"not in the table: {sorted(missing)}; run `make crash` to write it anew"


def test_table_has_no_fault_that_no_test_proves() -> None:
    words = {
        node.value
        for tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    gone = faults_of_the_table() - words
    assert not gone, f"no test proves {sorted(gone)} any more; run `make crash` to write it anew"


def trees() -> Iterator[ast.Module]:
    for folder in ("crash", "faults", "matrix"):
        for file in sorted((TESTS / folder).glob("test_*.py")):
            yield ast.parse(file.read_text())


def proved_in(tree: ast.Module) -> Iterator[str]:
    """The faults that are named where they are proved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "proved":
            (fault, *_) = node.args
            if isinstance(fault, ast.Constant):
                yield str(fault.value)


def faults_of_the_table() -> set[str]:
    rows = PAGE.read_text().partition(HEAD)[2].partition("\n\n")[0].splitlines()
    return {row.split("|")[1].strip() for row in rows if row.startswith("| ")}
