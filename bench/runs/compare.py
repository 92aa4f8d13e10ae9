"""Has everybody measured in turns, in bounded time, and collects the figures."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

from runs.contestant import CONTESTANTS, Contestant
from runs.machine import machine, versions
from runs.plan import READ_50, Plan, Round
from runs.process import Failed, measured, place_for, run
from runs.server import Server
from runs.starting import starting
from runs.workload import Policy, Workload

COUNTED_RUNS = 3

EVERYTHING = "everything"
"""What is missing of a contestant that is not there."""

LIMITS = "limits"
"""What the machine can do, as a workload to be asked for."""

COMMITS = "commits"
"""Commits a step, in the same way."""

CALLS = "calls"
"""What counting function calls is named, beside the workloads."""

CALLING = (
    *("bare", "hooks", "least-sqlite", "durably-sqlite"),
    *("least-postgres", "durably-postgres"),
)
"""Whose function calls are counted."""

INSTRUCTIONS = "instructions"
"""What counting instructions is named."""

PEERS = ("absurd-postgres", "langgraph", "langgraph-sqlite", "langgraph-postgres")
"""Those that take least of what one might use instead, and what theirs is compared to."""

COUNTING: dict[Policy, tuple[str, ...]] = {
    "read": (*CALLING, *PEERS),
    "once": (*CALLING, "no-intents-sqlite", "no-intents-postgres"),
}
"""Whose instructions are counted."""

FIRST = 5
"""Rounds before what is counted and weighed: what targets need comes early, if time is short."""


@dataclass
class Results:
    """What `bench/results/runs.json` holds.

    Attributes:
        samples: of each workload and contestant, one of each turn: figures a run. Seconds, bytes.
        commits: a step, by policy and contestant.
        calls: of functions, a step, by policy and steps of a run, and by contestant.
        instructions: a run, by policy and contestant.
        missing: what was not measured, and why.
    """

    part: str = "runs"
    command: str = ""
    machine: dict[str, str] = field(default_factory=dict[str, str])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    contestants: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    workloads: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    samples: dict[str, dict[str, list[dict[str, Any]]]] = field(
        default_factory=dict[str, dict[str, list[dict[str, Any]]]]
    )
    commits: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    calls: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    instructions: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    limits: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    waiting: dict[str, float] = field(default_factory=dict[str, float])
    starting: dict[str, float] = field(default_factory=dict[str, float])
    missing: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def added_to(self, earlier: Results) -> Results:
        """Earlier results, with these workloads in place of theirs."""
        missing = [
            one for one in earlier.missing if not one["what"].startswith(tuple(self.samples))
        ]
        return replace(
            earlier,
            command=f"{earlier.command}` and `{self.command}",
            contestants=self.contestants
            | {
                name: one
                for name, one in earlier.contestants.items()
                if name not in self.contestants
            },
            workloads=earlier.workloads | self.workloads,
            samples=earlier.samples | self.samples,
            commits=earlier.commits | self.commits,
            calls=self.calls or earlier.calls,
            instructions=earlier.instructions
            | {
                policy: earlier.instructions.get(policy, {}) | found
                for policy, found in self.instructions.items()
            },
            limits=self.limits or earlier.limits,
            missing=missing + [one for one in self.missing if one["what"] != EVERYTHING],
        )

    def text(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


class Comparison:
    """One run of the benchmark."""

    def __init__(
        self,
        plan: Plan,
        server: Server,
        command: str,
        patience: float = 1.0,
        only: Sequence[str] = tuple(CONTESTANTS),
    ) -> None:
        self.results = Results(command=command, machine=machine(), versions=versions(server))
        self._plan = plan
        self._server = server
        self._patience = patience
        self._until = time.monotonic() + plan.seconds
        self._absent = set(CONTESTANTS) - set(only)

    def everything(self) -> Results:
        self._look_who_is_there()
        self._limits()
        self._try("starting", "", lambda: self.results.starting.update(starting()))
        for one in self._plan.rounds[:FIRST]:
            self._do(one)
        self._count_commits()
        self._wait()
        for one in self._plan.rounds[FIRST:]:
            self._do(one)
        self._count_calls()
        self._count_instructions()
        self._limits()
        return self.results

    def some(self, workloads: Sequence[str]) -> Results:
        """Nothing but these workloads, counts or limits."""
        self._look_who_is_there()
        if LIMITS in workloads:
            self._limits()
        for one in self._plan.rounds:
            if one.workload.name in workloads:
                self._do(one)
        if COMMITS in workloads:
            self._count_commits()
        if CALLS in workloads:
            self._count_calls()
        if INSTRUCTIONS in workloads:
            self._count_instructions()
        return self.results

    # --- the parts

    def _look_who_is_there(self) -> None:
        for one in CONTESTANTS.values():
            self.results.contestants[one.name] = {
                "label": one.label,
                "database": one.database,
                "over": one.over,
                "how": one.how,
                "only": one.only or "",
            }
            if one.name in self._absent:
                self._miss(EVERYTHING, one.name, "not asked for")
            elif gone := [name for name in one.distributions if not installed(name)]:
                self._absent.add(one.name)
                self._miss(EVERYTHING, one.name, f"not installed: {', '.join(gone)}")

    def _limits(self) -> None:
        task = {
            "server": asdict(self._server),
            "seconds": 3.0,
            "workload": asdict(READ_50),
        }
        self._try(
            LIMITS,
            "",
            lambda: self.results.limits.append(
                run("runs.limits", json.dumps(task), 60 * self._patience)
            ),
        )

    def _count_commits(self) -> None:
        for number, policy in enumerate(self._plan.counted):
            self._count(policy, everyone=number == 0)

    def _count(self, policy: Policy, everyone: bool) -> None:
        found: dict[str, float] = {}
        for one in CONTESTANTS.values():
            if one.database == "none" or one.only not in (None, policy):
                continue
            if not (everyone or policy in one.policies):
                continue
            self._try(
                f"{COMMITS}, {policy}",
                one.name,
                lambda one=one: found.update({one.name: self._commits(one, policy)}),
            )
        self.results.commits[policy] = found

    def _count_calls(self) -> None:
        for policy, steps in self._plan.calls:
            found = self.results.calls.setdefault(f"{policy}-{steps}", {})
            workload = Workload(CALLS, policy, steps=steps, concurrency=1, runs=1, seconds=60)
            for name in CALLING:
                self._try(
                    f"{CALLS}, {policy}, {steps} steps",
                    name,
                    lambda name=name, found=found, workload=workload: found.update(
                        {name: self._calls(CONTESTANTS[name], workload)}
                    ),
                )

    def _calls(self, one: Contestant, workload: Workload) -> float:
        """Function calls of a step, in a run of the workload."""
        within = 400 * self._patience
        found = measured(one, workload, self._server, within, module="runs.calls")
        return round(found["calls"], 1)

    def _count_instructions(self) -> None:
        if shutil.which("valgrind") is None:
            self._miss(INSTRUCTIONS, "", "valgrind is not installed")
            return
        for policy, names in COUNTING.items():
            found = self.results.instructions.setdefault(policy, {})
            workload = Workload(INSTRUCTIONS, policy, concurrency=20, runs=20, seconds=3600)
            for one in map(CONTESTANTS.__getitem__, names):
                self._try(
                    f"{INSTRUCTIONS}, {policy}",
                    one.name,
                    lambda one=one, found=found, workload=workload: found.update(
                        {one.name: self._instructions(one, workload)}
                    ),
                )

    def _instructions(self, one: Contestant, workload: Workload) -> float:
        """Instructions of a run of the workload."""
        found = measured(
            one,
            workload,
            self._server,
            600 * self._patience,
            module="runs.instructions",
            valgrind=True,
        )
        return round(found["instructions"])

    def _commits(self, one: Contestant, policy: Policy) -> float:
        """Commits a step."""
        workload = Workload("counted", policy, concurrency=1, runs=COUNTED_RUNS, seconds=60)
        return measured(one, workload, self._server, 60 * self._patience, counting=True)["commits"]

    def _wait(self) -> None:
        for name in ("bare", "durably-sqlite", "durably-postgres"):
            self._try("memory", name, lambda name=name: self._weigh(CONTESTANTS[name]))

    def _weigh(self, one: Contestant) -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            place_for(one, Path(folder), self._server) as place,
        ):
            file = str(place.file) if place.file else None
            where = None if one.database == "none" else {"file": file, "url": place.url}
            task = {"runs": self._plan.waiting, "place": where}
            found = run("runs.waiting", json.dumps(task), 90 * self._patience)
        self.results.waiting[one.name] = found["bytes"]

    def _do(self, one: Round) -> None:
        name = one.workload.name
        self.results.workloads[name] = asdict(one.workload)
        samples = self.results.samples.setdefault(name, {})
        failed: set[str] = set()
        for turn in range(one.turns):
            # Whoever comes after a contestant that tires the machine is another each time.
            for contestant in one.contestants[turn:] + one.contestants[:turn]:
                if contestant.name in failed:
                    continue
                kept = samples.setdefault(contestant.name, [])
                done = self._try(
                    f"{name}, turn {turn + 1}",
                    contestant.name,
                    lambda c=contestant, kept=kept: kept.append(
                        rounded(
                            measured(c, one.workload, self._server, one.within * self._patience)
                        )
                    ),
                )
                if not done:
                    failed.add(contestant.name)

    # --- what fails, is told

    def _try(self, what: str, who: str, do: Callable[[], object]) -> bool:
        if who in self._absent:
            return False
        if time.monotonic() > self._until and who:
            self._miss(what, who, "the time was over")
            return False
        began = time.monotonic()
        try:
            do()
        except (Failed, subprocess.CalledProcessError, psycopg.Error) as error:
            self._miss(what, who, str(error))
            return False
        print(f"{what:28} {who:20} {time.monotonic() - began:5.1f} s", flush=True)
        return True

    def _miss(self, what: str, who: str, why: str) -> None:
        print(f"{what:28} {who:20} not measured: {why}"[:110], flush=True)
        self.results.missing.append({"what": what, "contestant": who, "why": why})


def installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    """To as many digits as mean something, for results that are committed."""
    return {
        name: float(f"{value:.5g}") if isinstance(value, float) else value
        for name, value in figures.items()
    }
