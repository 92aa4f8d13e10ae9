"""`make test` and `make test-long` together run every test, and the list of long ones is true."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from support.long import TESTS, Line, read, said_of

HOW = {"long", "first", "quick"}


@pytest.mark.parametrize("line", read(), ids=lambda line: line.pattern)
def test_every_line_is_about_tests_that_there_are(line: Line) -> None:
    assert line.how in HOW
    where, _, test = line.pattern.partition("::")
    function = re.split(r"[\[*]", test)[0] or "test_"  # it may name parameters only
    texts = [path.read_text() for path in TESTS.glob(where) if path.suffix == ".py"]
    assert any(f"def {function}" in text for text in texts)


def test_last_line_about_a_test_decides() -> None:
    lines = [Line("long", "crash/*"), Line("quick", "crash/a.py::test_x[sqlite*")]
    assert said_of("crash/a.py::test_x[sqlite-1]", lines) == "quick"
    assert said_of("crash/a.py::test_x[postgres-1]", lines) == "long"
    assert said_of("web/a.py::test_x", lines) == "quick"


@pytest.mark.long
def test_the_two_targets_run_every_test_once() -> None:
    """Of two folders, in one of which a line leaves the first parameters."""
    asked = ["tests/oban/test_elixir_jobs.py", "tests/soak"]
    every, quick, long = (
        collected(*asked, *marked) for marked in ([], ["-m", "not long"], ["-m", "long"])
    )
    assert quick and long
    assert sorted(every) == sorted(quick + long)


def collected(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if "::" in line]
