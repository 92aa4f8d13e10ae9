"""The plots of docs/benchmarks.md, as SVG with text that stays text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, StrMethodFormatter

from report.figures import Runs
from report.page import PICTURES

OURS, THEIRS, BARE, DATABASE = "#0b7285", "#868e96", "#ced4da", "#ffd8a8"

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "durably",  # The same results make the same file.
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def draw(runs: Runs, folder: Path) -> None:
    """Write all plots for which there are figures."""
    folder.mkdir(parents=True, exist_ok=True)
    for_bars = 0.42 * len(runs.there_for("read")) + 1.3
    plots = {"read-50": (cpu, for_bars), "read-1": (wall, for_bars), "steps-1000": (steps, 4.4)}
    with matplotlib.rc_context(STYLE):
        for workload, (fill, height) in plots.items():
            path = folder / Path(PICTURES[workload][1]).name
            path.unlink(missing_ok=True)
            if runs.measured(workload):
                save(path, height, fill, runs)


def save(path: Path, height: float, fill: Callable[[Axes, Runs], None], runs: Runs) -> None:
    figure, axes = pyplot.subplots(figsize=(9, height), layout="constrained")
    fill(axes, runs)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    # Every line ends with spaces otherwise.
    lines = [line.rstrip() for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")


def cpu(axes: Axes, runs: Runs) -> None:
    axes.set_title("CPU of a run of ten steps, 50 at once, in ms", loc="left", weight="bold")
    bars(axes, runs, "read-50", "cpu", also="database_cpu")
    server = Patch(color=DATABASE, label="the PostgreSQL server's")
    axes.legend(handles=[server], loc="upper right", frameon=False)


def wall(axes: Axes, runs: Runs) -> None:
    axes.set_title("A run of ten steps, one at a time, in ms", loc="left", weight="bold")
    bars(axes, runs, "read-1", "wall")


def bars(axes: Axes, runs: Runs, workload: str, metric: str, also: str | None = None) -> None:
    """One for each contestant that has a figure, the first on top."""
    found = [
        (name, value * 1000)
        for name in runs.contestants
        if (value := runs.median(workload, name, metric)) is not None
    ]
    for at, (name, value) in enumerate(found):
        axes.barh(at, value, color=colour(runs, name))
        more = (runs.median(workload, name, also) or 0.0) * 1000 if also else 0.0
        axes.barh(at, more, left=value, color=DATABASE)
        told = f" {value:.1f}" + (f" + {more:.1f}" if more else "")
        axes.text(value + more, at, told, va="center")
    axes.set_yticks(range(len(found)), [label(runs, name) for name, _ in found])
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.15)


def steps(axes: Axes, runs: Runs) -> None:
    axes.set_title("A step in a run of so many, in ms", loc="left", weight="bold")
    ends: list[tuple[float, str]] = []
    for name in runs.contestants:
        points = points_of(runs, name)
        if not points:
            continue
        ours = name.startswith("durably")
        axes.plot(
            *zip(*points, strict=True),
            color=colour(runs, name),
            linewidth=2.5 if ours else 1.2,
            linestyle="--" if runs.contestants[name]["database"] == "postgres" else "-",
            marker="o",
        )
        ends.append((points[-1][1], name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(45, 6000)
    axes.set_xticks([50, 200, 1000], ["50 steps", "200", "1,000"])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    name_ends(axes, runs, ends)


def points_of(runs: Runs, name: str) -> list[tuple[int, float]]:
    """Steps of a run, and milliseconds of each of them."""
    return [
        (steps := runs.workloads[workload]["steps"], value * 1000 / steps)
        for workload in ("steps-50", "steps-200", "steps-1000")
        if workload in runs.workloads and (value := runs.median(workload, name, "wall")) is not None
    ]


def name_ends(axes: Axes, runs: Runs, ends: list[tuple[float, str]]) -> None:
    """Write names beside the ends of lines, as far apart as it takes to read them."""
    low, high = axes.get_ylim()
    apart = (high / low) ** 0.055
    last = 0.0
    for value, name in sorted(ends):
        last = max(value, last * apart)
        axes.text(1150, last, label(runs, name), va="center", size=9)


def colour(runs: Runs, name: str) -> str:
    if runs.contestants[name]["database"] == "none":
        return BARE
    return OURS if name.startswith("durably") else THEIRS


def label(runs: Runs, name: str) -> str:
    return str(runs.contestants[name]["label"]).replace("`", "")
