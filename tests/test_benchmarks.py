"""docs/benchmarks.md says what the committed results say, whatever parts of them there are."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports modules of the bench, which is no package, and forgets them again."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(ROOT / "bench")
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("report", "install"):
            del sys.modules[name]


@pytest.fixture
def report(bench: Callable[[str], Any]) -> Any:
    """The module that writes the page."""
    return bench("report.page")


@pytest.fixture
def results(report: Any) -> dict[str, dict[str, Any]]:
    return report.parts(ROOT / "bench/results")


def test_the_page_is_what_the_results_give(report: Any, results: dict[str, Any]) -> None:
    assert (ROOT / "docs/benchmarks.md").read_text() == report.page(results)


def test_every_plot_of_the_page_is_there_and_has_text() -> None:
    plots = re.findall(r"!\[.+\]\((.+)\)", (ROOT / "docs/benchmarks.md").read_text())
    assert plots
    for path in plots:
        assert "durably, SQLite</text>" in (ROOT / "docs" / path).read_text()


def test_a_target_is_met_only_by_a_figure_within_it(
    bench: Callable[[str], Any], results: dict[str, Any]
) -> None:
    targets, figures = bench("report.targets"), bench("report.figures")
    turns = results["runs"]["samples"]["read-50"]
    turns["bare"] = [{**turns["bare"][0], "cpu": 0.1}]
    what = "CPU / bare, 50 at once, READ tools"
    for seconds, measured, met in ((0.1199, "1.2", True), (0.13, "1.3", False)):
        turns["durably-sqlite"] = [{**turns["durably-sqlite"][0], "cpu": seconds}]
        found = next(targets.of_runs(figures.Runs(results["runs"])))
        assert (found.what, found.measured, found.met) == (what, measured, met)


FIGURES: dict[str, Any] = {
    "commits": {"read": {"durably-sqlite": 1.0}},
    "limits": [{"sqlite_commits": 100.0, "postgres_commits_1": 1.0, "postgres_commits_50": 1.0}],
    "waiting": {"bare": 50_000.0, "durably-sqlite": 60_000.0},
    "starting": {"import": 0.01, "help": 0.1},
}


@pytest.mark.parametrize("gone", ["limits", "waiting", "starting", "samples"])
def test_what_was_not_measured_is_told_and_never_met(
    report: Any, results: dict[str, Any], gone: str
) -> None:
    runs = results["runs"]
    codec = {"codec": {"bytes": 1e9, "dump": 0.001, "load": 0.001}}
    runs |= {**FIGURES, "limits": [FIGURES["limits"][0] | codec]}
    everything = report.page(results)
    runs[gone] = type(runs[gone])()
    page = report.page(results)
    assert page.count("not measured |") > everything.count("not measured |")
    assert page.count("| met |") < everything.count("| met |")


def test_parts_are_told_beside_each_other_or_alone(report: Any, results: dict[str, Any]) -> None:
    part = {
        "measurements": [
            {"what": "enqueue, one", "contestant": "durably", "database": "sqlite", "unit": "ms"}
            | {"median": 1.5, "low": 1.0, "high": 2.0, "n": 3, "ratio": 0.5, "ratio_to": "oban"}
        ],
        "targets": [
            {"what": "enqueue to start, p50", "database": "sqlite", "target": "≤ 5 ms"}
            | {"measured": 7.0, "met": False, "limit": "the disk needs 6 ms"}
        ],
        "missing": {"pgqueuer": "not installed"},
        "circumstances": {},
    }
    row = "| enqueue to start, p50 | SQLite | ≤ 5 ms | 7 | **missed**: the disk needs 6 ms |"
    for parts in ({**results, "queues": part}, {"queues": part}):
        page = report.page(parts)
        assert row in page
        assert "| pgqueuer | not installed |" in page


def test_a_peer_that_does_not_install_takes_no_other_along(bench: Callable[[str], Any]) -> None:
    lock = (ROOT / "requirements-bench.lock").read_text()
    found = dict(bench("install").requirements(lock))
    assert len(found) == sum("==" in line for line in lock.splitlines())
    assert {"dbos", "absurd-sdk", "langgraph", "procrastinate", "pgqueuer"} <= found.keys()
    for name, text in found.items():
        first, *hashes = text.splitlines()
        assert first.startswith(f"{name}==")
        assert hashes and all("--hash=sha256:" in line for line in hashes)
        assert not text.endswith("\\")
