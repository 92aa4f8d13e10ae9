"""`python -m report`: writes docs/benchmarks.md and its plots, of what bench/results holds."""

from __future__ import annotations

from pathlib import Path

from report.figures import Runs
from report.page import page, parts
from report.plots import draw

ROOT = Path(__file__).parent.parent.parent


def main() -> None:
    found = parts(ROOT / "bench/results")
    if "runs" in found:
        draw(Runs(found["runs"]), ROOT / "docs/images/benchmarks")
    (ROOT / "docs/benchmarks.md").write_text(page(found))
    print(f"docs/benchmarks.md: {', '.join(found) or 'no results yet'}")


if __name__ == "__main__":
    main()
