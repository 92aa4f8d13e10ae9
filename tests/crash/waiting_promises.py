"""What must hold after a crash of a run that waits: the promises, checked on what is left.

As `promises`, for several runs and their waits: an undisturbed family, the instant of the crash,
and the end. Everything is read with plain SQL and from the world's file, not through the library.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from crash.databases import Look, instant
from crash.promises import readable
from crash.waiting import EARLY, LAPSING, SHORT_SECONDS, Waiting
from crash.world import World

SETTLED = ("done", "failed", "denied")
REPEATABLE = ("read", "idempotent")

DECISIONS = """
SELECT r.key || ':' || d.response || '.' || d.call || '/' || d.step AS call_id, d.decision
FROM durably_decisions d JOIN durably_runs r ON r.id = d.run_id
"""


@dataclass(frozen=True)
class Family:
    """What the ledger and the world hold at one instant.

    Attributes:
        runs: rows by key.
        effects: rows by idempotency key: calls, their steps and their waits.
        histories: messages by the key of their run.
        decisions: how often each thing was decided: what was asked, and what was said.
        happened: how often each call or step had its effect, by idempotency key.
        doubted: the calls that a person was asked about because nobody knew, likewise.
        paid: how many model requests were paid, by all runs.
        budgets: what the runs share, and have spent.
    """

    runs: dict[str, dict[str, Any]]
    effects: dict[str, dict[str, Any]]
    histories: dict[str, list[dict[str, Any]]]
    attempts: list[dict[str, Any]]
    signals: list[dict[str, Any]]
    decisions: Counter[tuple[str, str]]
    happened: Counter[str]
    doubted: Counter[str]
    paid: int
    budgets: list[dict[str, Any]]

    @classmethod
    def of(cls, world: World) -> Family:
        with world.database.snapshot() as rows:
            return cls._read(rows, world)

    @classmethod
    def _read(cls, rows: Look, world: World) -> Family:
        runs = {row["id"]: row for row in rows("SELECT * FROM durably_runs ORDER BY id")}
        messages = rows("SELECT * FROM durably_messages ORDER BY run_id, seq")
        booked = Counter(row["key"] for row in rows("SELECT key FROM bookings"))
        return cls(
            runs={run["key"]: run for run in runs.values()},
            effects={e["idempotency_key"]: e for e in rows("SELECT * FROM durably_effects")},
            histories={
                run["key"]: [m for m in messages if m["run_id"] == run["id"]]
                for run in runs.values()
            },
            attempts=rows("SELECT * FROM durably_attempts"),
            signals=rows("SELECT * FROM durably_signals ORDER BY id"),
            decisions=Counter((row["call_id"], row["decision"]) for row in rows(DECISIONS)),
            happened=world.effects() + booked,
            doubted=Counter(fact["key"] for fact in world.records("asked")),
            paid=world.paid(),
            budgets=rows("SELECT * FROM durably_budgets"),
        )

    @property
    def responses(self) -> int:
        return sum(m["kind"] == "response" for h in self.histories.values() for m in h)

    def state(self, key: str) -> str | None:
        return self.effects[key]["state"] if key in self.effects else None

    def policy(self, key: str) -> str:
        """The policy of a call or step; ``ask`` for one that a person is asked about in doubt."""
        effect = self.effects[key]
        return "ask" if effect["policy"] == "once" and not _reconciles(key) else effect["policy"]


def check(waiting: Waiting, undisturbed: Family, struck: Family, end: Family) -> None:
    """Every promise, after one crash and the successor's work."""
    _family_is_as_undisturbed(waiting, undisturbed, end)
    in_flight = struck.paid - struck.responses
    assert in_flight in (0, 1), "one run at a time asks the model"
    assert end.paid == undisturbed.paid + in_flight
    for key in undisturbed.effects:
        policy, usual = undisturbed.policy(key), undisturbed.happened[key]
        before, after, state = struck.happened[key], end.happened[key], struck.state(key)
        what = f"{policy} {key}: {before} times and {state} at the crash, {after} in the end"
        doubted = policy == "ask" and state == "started"
        assert (end.doubted[key] > 0) == doubted, f"asked or not: {what}"
        if state in SETTLED:
            assert after == before, f"what is finished stays finished: {what}"
        elif policy in REPEATABLE:
            assert after == before + usual, what
        else:
            assert after == usual, what
        if (key, "approved") in _approvals(undisturbed) and before:
            assert (key, "approved") in _approvals(struck), f"before it was approved: {what}"


def check_after_many(waiting: Waiting, undisturbed: Family, end: Family, crashes: int) -> None:
    """What holds after any number of crashes, wherever they fell."""
    _family_is_as_undisturbed(waiting, undisturbed, end)
    assert 0 <= end.paid - undisturbed.paid <= crashes, "one request in flight for each crash"
    for key in undisturbed.effects:
        usual, times = undisturbed.happened[key], end.happened[key]
        more = crashes if undisturbed.policy(key) in REPEATABLE and usual else 0
        assert usual <= times <= usual + more, f"{key} happened {times} times"


def check_is_worth_comparing(waiting: Waiting, undisturbed: Family) -> None:
    """Everything that this is about did happen, each call once, and was settled as it should be."""
    assert set(undisturbed.happened.values()) <= {1}
    assert not undisturbed.doubted
    (spent,) = _spent(undisturbed)
    assert spent["spent_requests"] == undisturbed.paid
    assert all(run["state"] == waiting.ends for run in undisturbed.runs.values())
    assert len(undisturbed.runs) == (1 if waiting.child is None else 2)
    asked = {e["ask"] for e in undisturbed.effects.values()}
    states = {e["tool_name"]: e["state"] for e in undisturbed.effects.values() if not e["step"]}
    if "work" in waiting.tools:
        policies = {e["policy"] for e in undisturbed.effects.values() if e["step"]}
        assert policies == {"read", "idempotent", "once", "transactional"}
        assert "timer" in asked
    if "listen" in waiting.tools:
        taken = {s["signal_id"]: s["taken_step"] for s in undisturbed.signals}
        assert taken == {"a": "signal part", "b": "signal part #2", "late": "signal late"}
    if LAPSING in waiting.tools:
        assert states[LAPSING] == "denied"
        assert {"approval", "question"} <= asked
    if waiting.child is not None:
        assert "child" in asked


def _family_is_as_undisturbed(waiting: Waiting, undisturbed: Family, end: Family) -> None:
    assert end.runs.keys() == undisturbed.runs.keys(), "a child exists once"
    for key, run in end.runs.items():
        usual = undisturbed.runs[key]
        assert run["state"] == waiting.ends, run
        assert run["output"] == usual["output"]
        assert not run["tells_end"], "everybody knows that it ended"
        assert json.loads(run["usage"]) == json.loads(usual["usage"]), "over all attempts, once"
        assert _told(waiting, end, key) == _told(waiting, undisturbed, key)
    assert _spent(end) == _spent(undisturbed), "parent and child are counted once"
    for attempt in end.attempts:
        assert attempt["outcome"] and attempt["ended_at"], attempt
    _effects_are_as_undisturbed(waiting, undisturbed, end)
    _signals_are_taken_once(undisturbed, end)
    said = {what: times for what, times in end.decisions.items() if what[1] != "resolved"}
    assert said == undisturbed.decisions, "nobody is asked twice, and a crash decides nothing"


def _told(waiting: Waiting, family: Family, key: str) -> list[Any]:
    """A run's history; the answers to one response in any order, where they come in any."""
    found = readable(family.histories[key], set())
    if not waiting.in_order:
        for message in found:
            message["parts"].sort(key=lambda part: part.get("tool_call_id") or "")
    return found


def _effects_are_as_undisturbed(waiting: Waiting, undisturbed: Family, end: Family) -> None:
    assert end.effects.keys() == undisturbed.effects.keys()
    for key, effect in end.effects.items():
        usual = undisturbed.effects[key]
        assert (effect["state"], _json(effect)) == (usual["state"], _json(usual)), key
        assert not effect["asked"], effect
        assert waiting.ends == "cancelled" or effect["state"] in SETTLED, effect
        if effect["ask"] == "timer":
            slept = instant(effect["finished_at"]) - instant(effect["started_at"])
            assert slept.total_seconds() >= SHORT_SECONDS, "no timer rings early"


def _signals_are_taken_once(undisturbed: Family, end: Family) -> None:
    fields = ("name", "payload", "signal_id", "taken_response", "taken_call", "taken_step")
    mine, usual = ([[s[name] for name in fields] for s in m.signals] for m in (end, undisturbed))
    assert mine == usual
    if mine:
        assert [s["signal_id"] for s in end.signals] == [*EARLY, "late"], "in their order"


def _spent(family: Family) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in budget.items() if name.startswith("spent_")}
        for budget in family.budgets
    ]


def _approvals(family: Family) -> set[tuple[str, str]]:
    """As in `decisions`, of calls and steps alike."""
    return {(call_id.removesuffix("/"), said) for call_id, said in family.decisions}


def _reconciles(key: str) -> bool:
    return key.endswith("/find")


def _json(effect: dict[str, Any]) -> Any:
    return None if effect["result"] is None else json.loads(effect["result"])
