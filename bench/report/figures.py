"""The figures of runs, as results hold them: medians, spreads and ratios; nothing is rounded."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

Json = dict[str, Any]


NO_PEERS = ("durably", "recipe", "least", "no-intents")
"""How the names begin of durably itself, and of whoever saves too little."""


class Spread(NamedTuple):
    """The median of some samples, the lowest and the highest."""

    median: float
    low: float
    high: float


class Runs:
    """What `bench/results/runs.json` says. Anything may be missing: then there is None."""

    def __init__(self, results: Json) -> None:
        self.results = results
        self.contestants: dict[str, Json] = results["contestants"]
        self.workloads: dict[str, Json] = results["workloads"]

    def samples(self, workload: str, contestant: str) -> list[Json]:
        return self.results["samples"].get(workload, {}).get(contestant, [])

    def measured(self, workload: str) -> bool:
        """True if durably has figures of it."""
        return any(self.samples(workload, name) for name in self.contestants if "durably" in name)

    def spread(self, workload: str, contestant: str, metric: str) -> Spread | None:
        samples = self.samples(workload, contestant)
        values = [sample[metric] for sample in samples if metric in sample]
        if not values:
            return None
        return Spread(statistics.median(values), min(values), max(values))

    def median(self, workload: str, contestant: str, metric: str) -> float | None:
        found = self.spread(workload, contestant, metric)
        return found.median if found else None

    def ratio(self, workload: str, contestant: str, metric: str) -> float | None:
        """To what the same runs need with nothing stored: the median over the turns."""
        pairs = self._pairs(workload, contestant, metric)
        return statistics.median(mine / bare for mine, bare in pairs) if pairs else None

    def overhead(self, workload: str, contestant: str, metric: str) -> float | None:
        """Beyond what the same runs need with nothing stored: the median over the turns."""
        pairs = self._pairs(workload, contestant, metric)
        return statistics.median(mine - bare for mine, bare in pairs) if pairs else None

    def peers(self, database: str) -> list[str]:
        """Those on a database that save every step, and that one might use instead of durably."""
        return [
            name
            for name, one in self.contestants.items()
            if one["database"] == database and not name.startswith(NO_PEERS)
        ]

    def there_for(self, policy: str) -> list[str]:
        """All but those who are there for another policy alone."""
        return [
            name for name, one in self.contestants.items() if one.get("only", "") in ("", policy)
        ]

    def requests(self, workload: str) -> int:
        return int(self.workloads[workload]["steps"]) + 1

    def limit(self, name: str) -> float | None:
        values = [limits[name] for limits in self.results["limits"]]
        return statistics.median(values) if values else None

    def instructions(self, policy: str, contestant: str) -> float | None:
        """Of a run with this contestant, to those of the same run with nothing stored."""
        theirs, bare = self._instructions(policy, contestant)
        return theirs / bare if bare and theirs else None

    def instructions_over(self, policy: str, contestant: str) -> float | None:
        """Beyond those of the same run with nothing stored."""
        theirs, bare = self._instructions(policy, contestant)
        return theirs - bare if bare and theirs else None

    def history_bytes(self) -> float | None:
        """JSON of the final history of a run with ten steps of 1 KB."""
        return next((limits["codec"]["bytes"] for limits in self.results["limits"]), None)

    def _instructions(self, policy: str, contestant: str) -> tuple[float | None, float | None]:
        """A contestant's, and those of the same run with nothing stored."""
        found = self.results.get("instructions", {}).get(policy, {})
        over = self.contestants.get(contestant, {}).get("over", "")
        return found.get(contestant), found.get(over)

    def _pairs(self, workload: str, contestant: str, metric: str) -> list[tuple[float, float]]:
        if contestant not in self.contestants:
            return []
        over = self.contestants[contestant]["over"]
        mine, bare = self.samples(workload, contestant), self.samples(workload, over)
        return [(one[metric], other[metric]) for one, other in zip(mine, bare, strict=False)]
