"""The plots of docs/benchmarks.md, as SVG with text that stays text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from report.figures import Runs

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
    with matplotlib.rc_context(STYLE):
        save(folder / "cpu.svg", 0.42 * len(runs.contestants) + 1.3, lambda axes: cpu(axes, runs))
        save(folder / "wall.svg", 0.42 * len(runs.contestants) + 1.3, lambda axes: wall(axes, runs))
        save(folder / "steps.svg", 4.4, lambda axes: steps(axes, runs))


def save(path: Path, height: float, fill: Callable[[Axes], None]) -> None:
    figure, axes = pyplot.subplots(figsize=(9, height), layout="constrained")
    fill(axes)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    # Every line ends with spaces otherwise.
    lines = [line.rstrip() for line in path.read_text().splitlines()]
    path.write_text("\n".join(lines) + "\n")


def cpu(axes: Axes, runs: Runs) -> None:
    axes.set_title("CPU of a run of ten steps, 50 at once, in ms", loc="left", weight="bold")
    bars(axes, runs, "read-50", "cpu", also="database_cpu")
    axes.bar(0, 0, color=DATABASE, label="the PostgreSQL server's")
    axes.legend(loc="lower right", frameon=False)


def wall(axes: Axes, runs: Runs) -> None:
    title = "From start to result of a run of ten steps, one at a time, in ms"
    axes.set_title(title, loc="left", weight="bold")
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
    axes.margins(x=0.15)


def steps(axes: Axes, runs: Runs) -> None:
    axes.set_title("A step in a run of so many, in ms", loc="left", weight="bold")
    for name in runs.contestants:
        points = [
            (runs.workloads[workload]["steps"], value * 1000 / runs.workloads[workload]["steps"])
            for workload in ("steps-50", "steps-200", "steps-1000")
            if workload in runs.workloads
            and (value := runs.median(workload, name, "wall")) is not None
        ]
        if not points:
            continue
        ours = name.startswith("durably")
        line = {"color": colour(runs, name), "linewidth": 2.5 if ours else 1.2, "marker": "o"}
        axes.plot(*zip(*points, strict=True), **line, linestyle=style(runs, name))
        axes.text(points[-1][0], points[-1][1], "  " + label(runs, name), va="center", size=9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([50, 200, 1000], ["50 steps", "200", "1,000"])
    axes.minorticks_off()
    axes.margins(x=0.02)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * 3.5)


def colour(runs: Runs, name: str) -> str:
    if runs.contestants[name]["database"] == "none":
        return BARE
    return OURS if name.startswith("durably") else THEIRS


def style(runs: Runs, name: str) -> str:
    return "--" if runs.contestants[name]["database"] == "postgres" else "-"


def label(runs: Runs, name: str) -> str:
    return str(runs.contestants[name]["label"]).replace("`", "")
