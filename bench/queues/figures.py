"""What was measured, as ``bench/results/queues.json`` holds it: figures, and targets met or not.

Owns the shape of both; leaves what they mean to whoever measures, and how they look to the report.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure of one contestant.

    Attributes:
        part: of the benchmark, which can be measured again by itself.
        what: such as ``enqueue to start, p99``.
        database: ``sqlite`` or ``postgres``.
        unit: ``ms``, ``s``, ``MB``, or what comes a second.
        median, low, high: of ``n`` repetitions of the whole measurement.
        ratio: beside ``ratio_to``, if it is read so.
    """

    part: str
    what: str
    contestant: str
    database: str
    unit: str
    median: float
    low: float
    high: float
    n: int
    ratio: float | None = None
    ratio_to: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A limit, and whether it was kept.

    Attributes:
        part: as of a measurement.
        target: in words, with its unit.
        limit: of a physical kind, where the target cannot be met: in words.
    """

    part: str
    what: str
    database: str
    target: str
    measured: float
    met: bool
    limit: str | None = None


@dataclass
class Figures:
    """Everything that was measured, part by part."""

    measurements: list[Measurement] = field(default_factory=list[Measurement])
    targets: list[Target] = field(default_factory=list[Target])
    missing: dict[str, str] = field(default_factory=dict[str, str])
    circumstances: dict[str, Any] = field(default_factory=dict[str, Any])
    part: str = ""

    @classmethod
    def read(cls, path: Path) -> Figures:
        """What a file holds; nothing if there is none.

        Raises:
            TypeError: the file is of another version of the benchmark.
        """
        if not path.exists():
            return cls()
        held = json.loads(path.read_text())
        return cls(
            [Measurement(**one) for one in held["measurements"]],
            [Target(**one) for one in held["targets"]],
            held["missing"],
            held["circumstances"],
        )

    def begin(self, part: str) -> None:
        """What comes next is of this part, and replaces what it had said before."""
        self.part = part
        self.measurements = [one for one in self.measurements if one.part != part]
        self.targets = [one for one in self.targets if one.part != part]
        self.missing = {
            what: why for what, why in self.missing.items() if not what.startswith(f"{part}: ")
        }

    def add(
        self, what: str, who: str, database: str, unit: str, values: Sequence[float], **more: Any
    ) -> float:
        """Keep the median of repetitions, and their spread; returns the median."""
        median = statistics.median(values)
        self.measurements.append(
            Measurement(
                self.part,
                what,
                who,
                database,
                unit,
                median,
                min(values),
                max(values),
                len(values),
                **more,
            )
        )
        return median

    def aim(
        self,
        what: str,
        database: str,
        measured: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        unit: str = "",
        limit: str | None = None,
    ) -> None:
        """Compare with a target."""
        met = measured <= at_most if at_most is not None else measured >= (at_least or 0.0)
        bound = f"≤ {at_most:g}" if at_most is not None else f"≥ {at_least:g}"
        words = f"{bound} {unit}".strip()
        said = None if met else limit
        self.targets.append(Target(self.part, what, database, words, measured, met, said))

    def median(self, what: str, who: str, database: str) -> float | None:
        """A median that was kept before; None if there is none."""
        for one in self.measurements:
            if (one.what, one.contestant, one.database) == (what, who, database):
                return one.median
        return None

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = asdict(self)
        del held["part"]
        path.write_text(json.dumps(held, indent=1, ensure_ascii=False) + "\n")

    def table(self) -> str:
        """For the terminal."""
        lines = [
            f"{m.what:44} {m.contestant:14} {m.database:9} {m.median:12.3f} {m.unit:10}"
            f" [{m.low:.3f} … {m.high:.3f}] n={m.n}"
            + (f"  {m.ratio:.2f} x {m.ratio_to}" if m.ratio is not None else "")
            for m in self.measurements
        ]
        lines.append("")
        for t in self.targets:
            verdict = "met" if t.met else "MISSED" + (f": {t.limit}" if t.limit else "")
            lines.append(f"{t.what:44} {t.database:9} {t.target:12} {t.measured:10.3f}  {verdict}")
        lines += [f"not measured: {name}: {why}" for name, why in self.missing.items()]
        return "\n".join(lines)
