"""What a soak left: the ledger's tables, read with plain SQL, and the record of the outside.

Owns how it is read; what it must look like is `audit`'s, `audit_histories`' and `audit_waits`'.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from soak.outside import Deeds
from soak.workload import POLICIES, SCRIPTS, Responses, Soaked

type Row = dict[str, Any]

FINAL = ("completed", "discarded", "cancelled")


@dataclass(frozen=True)
class RunEvidence:
    """One run, and everything that is known of it.

    Attributes:
        row: of the ledger.
        scenario: what it played.
        messages: each row, with its body decoded.
        deeds: what happened outside.
    """

    row: Row
    scenario: str
    messages: list[Row]
    effects: list[Row]
    attempts: list[Row]
    events: list[Row]
    signals: list[Row]
    decisions: list[Row]
    deeds: Deeds

    @property
    def key(self) -> str:
        return self.row["key"]

    @property
    def state(self) -> str:
        return self.row["state"]

    @property
    def completed(self) -> bool:
        return self.state == "completed"

    @property
    def was_steered(self) -> bool:
        """Whether another run of its thread has seen its message: it had no attempt of its own."""
        return any(event["kind"] == "taken" for event in self.events)

    @property
    def script(self) -> Responses:
        return SCRIPTS[self.scenario]

    @cached_property
    def responses(self) -> list[Row]:
        return [message for message in self.messages if message["kind"] == "response"]

    @cached_property
    def outcomes(self) -> dict[int, str]:
        """How each attempt ended."""
        return {row["attempt"]: row["outcome"] for row in self.attempts}

    def policy(self, effect: Row) -> str:
        """What the call was declared as; empty if it does nothing to the outside."""
        step = effect["step"]
        return POLICIES.get(f"{effect['tool_name']}/{step}" if step else effect["tool_name"], "")


@dataclass(frozen=True)
class Evidence:
    """Everything at the end of a soak.

    Attributes:
        booked: rows of the application's table, written in transactions with the ledger.
        acknowledged: the runs that clients were told exist: scenario and `on_busy`, by key.
        watched: the ids of events that somebody saw of a run, to its end.
        signalled: how many signals a client was told were sent, by run.
    """

    runs: dict[str, RunEvidence]
    budgets: list[Row]
    workers: list[Row]
    booked: Counter[str]
    acknowledged: dict[str, Row]
    watched: dict[str, list[int]]
    signalled: Counter[str]
    asked: int

    @classmethod
    def of(cls, site: Soaked) -> Evidence:
        rows, world = site.world.database.rows, site.world
        runs = rows("SELECT * FROM durably_runs ORDER BY id")
        prompts = {row["run_id"]: row["prompt"] for row in rows("SELECT * FROM durably_inputs")}
        tables = {
            "messages": _by_run(rows("SELECT * FROM durably_messages ORDER BY run_id, seq")),
            "effects": _by_run(rows("SELECT * FROM durably_effects")),
            "attempts": _by_run(rows("SELECT * FROM durably_attempts ORDER BY run_id, attempt")),
            "events": _by_run(rows("SELECT * FROM durably_events ORDER BY id")),
            "signals": _by_run(rows("SELECT * FROM durably_signals ORDER BY id")),
            "decisions": _by_run(rows("SELECT * FROM durably_decisions ORDER BY id")),
        }
        for messages in tables["messages"].values():
            for message in messages:
                message["body"] = json.loads(message["body"])
        return cls(
            runs={
                run["key"]: RunEvidence(
                    row=run,
                    scenario=json.loads(prompts[run["id"]]).partition(" ")[0],
                    deeds=site.outside.of(run["key"]),
                    **{name: table[run["id"]] for name, table in tables.items()},
                )
                for run in runs
            },
            budgets=rows("SELECT * FROM durably_budgets"),
            workers=rows("SELECT * FROM durably_workers"),
            booked=Counter(row["key"] for row in rows("SELECT key FROM bookings")),
            acknowledged={fact["key"]: fact for fact in world.records("acknowledged")},
            watched={fact["key"]: fact["seen"] for fact in world.records("watched")},
            signalled=Counter(fact["key"] for fact in world.records("signalled")),
            asked=len(world.records("asked")),
        )

    @cached_property
    def threads(self) -> dict[str, list[RunEvidence]]:
        """The runs of each thread, in the order in which they were enqueued."""
        found: dict[str, list[RunEvidence]] = defaultdict(list)
        for run in self.runs.values():
            if run.row["thread"] is not None:
                found[run.row["thread"]].append(run)
        return found

    def effects_by_policy(self) -> dict[str, tuple[int, int, int]]:
        """Of each policy: calls, effects, and effects that repeat one."""
        found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for run in self.runs.values():
            for effect in run.effects:
                if policy := run.policy(effect):
                    key = effect["idempotency_key"]
                    table = self.booked[key] if policy == "transactional" else 0
                    times = table or len(run.deeds.acted.get(key, []))
                    for i, more in enumerate((1, times, max(0, times - 1))):
                        found[policy][i] += more
        return {policy: (c, e, r) for policy, (c, e, r) in sorted(found.items())}


TABLES = ("runs", "inputs", "messages", "effects", "attempts", "events", "signals", "decisions")


def dump(site: Soaked) -> None:
    """Keep the ledger's tables as files, a line of JSON for each row."""
    folder = site.world.folder / "tables"
    folder.mkdir()
    for name in (*TABLES, "budgets", "workers"):
        rows = site.world.database.rows(f"SELECT * FROM durably_{name}")
        lines = (json.dumps(row, default=str) for row in rows)
        (folder / f"{name}.jsonl").write_text("\n".join(lines))


def _by_run(rows: list[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["run_id"]].append(row)
    return found
