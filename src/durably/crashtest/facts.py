"""What one run left: in its ledger, in its notes, and before its crash.

Owns reading it from the run's folder; what is right and wrong with it is the judge's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from durably.crashtest.job import Role
from durably.crashtest.notes import read_notes
from durably.crashtest.strikes import Strike

SETTLED = ("done", "failed", "denied")


@dataclass(frozen=True)
class EffectFacts:
    """A call in the ledger, at one moment."""

    call: str
    tool: str
    policy: str
    on_doubt: str | None
    state: str
    result: str | None

    @property
    def told(self) -> bool:
        """True if the model was told that nobody knows what became of it."""
        return self.state == "in_doubt" and self.result is not None

    @property
    def described(self) -> str:
        """Its policy, as `EffectPolicy` writes it, as far as the ledger knows it."""
        return self.policy if self.on_doubt is None else f"{self.policy} ({self.on_doubt})"


@dataclass(frozen=True)
class RunFacts:
    """A run in the ledger, at one moment; keys are written with `RUN` for the run's own."""

    run: str
    agent: str
    state: str
    output: str | None
    error: str | None
    messages: list[dict[str, Any]]
    effects: dict[str, EffectFacts]

    @property
    def responses(self) -> int:
        """How many of its messages are the model's."""
        return sum(message.get("kind") == "response" for message in self.messages)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> RunFacts:
        names = ("call", "tool", "policy", "on_doubt", "state", "result")
        effects = [EffectFacts(**{n: effect[n] for n in names}) for effect in found["effects"]]
        fields = {n: found[n] for n in ("run", "agent", "state", "output", "error", "messages")}
        return cls(**fields, effects={effect.call: effect for effect in effects})


@dataclass
class BodyRuns:
    """How often the body of one call, or step, really ran, by the role of the process.

    Attributes:
        policy: as the tool declares it; None of a step, which only the ledger knows.
        began: how often it was begun; ``ended``: how often it returned, or gave its answer.
        settled: what was said about it when it was in doubt, and why.
    """

    run: str
    call: str
    tool: str
    policy: str | None = None
    began: Counter[str] = field(default_factory=Counter[str])
    ended: Counter[str] = field(default_factory=Counter[str])
    settled: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def label(self) -> str:
        """The tool, and the step in it."""
        _, slash, step = self.call.partition("/")
        return f"{self.tool}{slash}{step}"


@dataclass(frozen=True)
class Facts:
    """All of it.

    Attributes:
        runs: the run itself first, then those that it started.
        before: the same at the crash, as it was found after it.
        bodies: by run and call.
        asked: the requests to the model: role, run, and how many responses there had been.
        reached: the boundaries, in order; of a process that was not killed.
        stuck: why the run could not go on, if it could not.
    """

    runs: dict[str, RunFacts]
    before: dict[str, RunFacts]
    bodies: dict[tuple[str, str], BodyRuns]
    asked: list[tuple[str, str, int]]
    reached: list[Strike]
    stuck: str | None
    forbidden: str | None

    @property
    def main(self) -> RunFacts:
        """The run itself."""
        return next(iter(self.runs.values()))

    @classmethod
    def of(cls, folder: Path, role: Role) -> Facts:
        """Read what a process of this role left, and those before it."""
        found = json.loads((folder / f"{role}.result.json").read_text("utf-8"))
        notes = read_notes(folder)
        tools = [note["tool"] for note in notes if note["what"] == "raised" and note["asked"]]
        return cls(
            runs=_by_key(found["runs"]),
            before=_by_key(found.get("before", [])),
            bodies=_bodies(notes),
            asked=[(n["role"], n["run"], n["number"]) for n in notes if n["what"] == "asked"],
            reached=[Strike(*strike) for strike in found["reached"]],
            stuck=found["stuck"],
            forbidden=tools[0] if tools else None,
        )

    def policy(self, body: BodyRuns) -> str:
        """The policy of a call; of a step, as the ledger has it."""
        if body.policy is not None:
            return body.policy
        run = self.runs.get(body.run)
        effect = None if run is None else run.effects.get(body.call)
        return "once (ask)" if effect is None else effect.described

    def told(self, body: BodyRuns) -> bool:
        """True if the model was told that nobody knows what became of the call."""
        run = self.runs.get(body.run)
        effect = None if run is None else run.effects.get(body.call)
        return effect is not None and effect.told


def _by_key(found: Iterable[Mapping[str, Any]]) -> dict[str, RunFacts]:
    return {run.run: run for run in map(RunFacts.of, found)}


def _bodies(notes: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], BodyRuns]:
    bodies: dict[tuple[str, str], BodyRuns] = {}
    for note in notes:
        if note["what"] not in ("began", "ended", "settled", "left"):
            continue
        place = (note["run"], note["call"])
        body = bodies.setdefault(place, BodyRuns(*place, note["tool"]))
        match note["what"]:
            case "began":
                body.began[note["role"]] += 1
                body.policy = note["policy"]
            case "ended":
                body.ended[note["role"]] += 1
            case "settled":
                body.settled.append((note["how"], note["because"]))
            case _:
                # It waits, and runs again from its start when that is over: it has not acted.
                body.began[note["role"]] -= 1
    return bodies
