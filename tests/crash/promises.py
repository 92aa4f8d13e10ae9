"""What must hold after a crash, whatever it hit: the promises, checked on what is left.

Owns the comparison of three moments: a run that nothing happened to, the instant of the crash,
and the end. Everything is read with plain SQL and from the world's file, not through the library.
"""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from crash.databases import Look
from crash.scenarios import KEY, Scenario
from crash.world import World

SETTLED = ("done", "failed")

APPROVALS = """
SELECT e.idempotency_key AS key FROM durably_decisions d
JOIN durably_effects e ON e.run_id = d.run_id AND e.response = d.response AND e.call = d.call
WHERE d.decision = 'approved'
"""

WITHDRAWN = "SELECT attempt FROM durably_events WHERE kind = 'withdrawn' ORDER BY id"


@dataclass(frozen=True)
class Moment:
    """What the ledger and the world hold at one instant.

    Attributes:
        effects: rows of the ledger, by idempotency key.
        happened: how often each call had its effect, by idempotency key; rows for transactional
            tools, lines in the world's file for others.
        approved: how often a call was approved, by idempotency key.
        asked: the calls that a person has decided about, by idempotency key.
        budgets: what runs share, and have spent.
        requests: the model requests that were paid: how many responses there had been before each.
        deltas: how many pieces of messages in the making there are.
        withdrawn: the attempts whose half messages were taken back.
    """

    run: dict[str, Any] | None
    effects: dict[str, dict[str, Any]]
    messages: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    approved: Counter[str]
    happened: Counter[str]
    asked: Counter[str]
    requests: list[int]
    budgets: list[dict[str, Any]]
    deltas: int
    withdrawn: list[int]

    @classmethod
    def of(cls, world: World) -> "Moment":
        with world.database.snapshot() as rows:
            return cls._read(rows, world)

    @classmethod
    def _read(cls, rows: Look, world: World) -> "Moment":
        runs = rows("SELECT * FROM durably_runs")
        effects = rows("SELECT * FROM durably_effects ORDER BY response, call")
        booked = Counter(row["key"] for row in rows("SELECT key FROM bookings"))
        return cls(
            run=runs[0] if runs else None,
            effects={row["idempotency_key"]: row for row in effects},
            messages=rows("SELECT * FROM durably_messages ORDER BY seq"),
            attempts=rows("SELECT * FROM durably_attempts ORDER BY attempt"),
            approved=Counter(row["key"] for row in rows(APPROVALS)),
            happened=world.effects() + booked,
            asked=Counter(fact["key"] for fact in world.records("asked")),
            requests=[fact["response"] for fact in world.records("paid")],
            budgets=rows("SELECT * FROM durably_budgets"),
            deltas=len(rows("SELECT id FROM durably_events WHERE kind = 'delta'")),
            withdrawn=[row["attempt"] for row in rows(WITHDRAWN)],
        )

    @property
    def paid(self) -> int:
        return len(self.requests)

    @property
    def responses(self) -> int:
        return self.responses_before(len(self.messages))

    def responses_before(self, seq: int) -> int:
        return sum(message["kind"] == "response" for message in self.messages[:seq])

    def state(self, key: str) -> str | None:
        return self.effects[key]["state"] if key in self.effects else None


def check(scenario: Scenario, undisturbed: Moment, struck: Moment, end: Moment) -> None:
    """Every promise, after one crash and the successor's work."""
    _nothing_is_lost(undisturbed, end)
    _nothing_is_paid_twice(undisturbed, struck, end)
    _effects_keep_their_policy(scenario, undisturbed, struck, end)
    _approvals_are_given_once_and_first(scenario, undisturbed, struck, end)
    _the_record_is_whole(end)
    _history_is_as_undisturbed(undisturbed, end)
    _half_messages_are_taken_back(undisturbed, struck, end)


def check_after_deploy(
    scenario: Scenario, undisturbed: Moment, struck: Moment, end: Moment
) -> None:
    """Every promise, after one crash, where the next version of the agent goes on: it says and asks
    the same, and its messages are not the same.
    """
    assert end.run is not None and undisturbed.run is not None
    assert end.run["state"] == "completed", end.run
    assert end.run["output"] == undisturbed.run["output"]
    _spending_is_counted_once(end.run, end.budgets)
    _nothing_is_paid_twice(undisturbed, struck, end)
    _effects_keep_their_policy(scenario, undisturbed, struck, end)
    _the_record_is_whole(end)
    assert end.messages[: len(struck.messages)] == struck.messages, "what is saved stays"


def check_after_discard(
    scenario: Scenario, undisturbed: Moment, struck: Moment, end: Moment
) -> None:
    """What holds of a run that was given up after one crash: nothing happened too often."""
    assert end.paid == struck.paid, "nobody asked the model once more"
    for key, policy in _policies(scenario, undisturbed).items():
        before, after = struck.happened[key], end.happened[key]
        if struck.state(key) in SETTLED:
            assert after == before, f"{policy} {key}: a finished tool stays finished"
        elif policy in ("read", "idempotent", "retry"):
            assert after <= before + 1, f"{policy} {key} happened {after} times"
        else:
            assert after <= 1, f"{policy} {key} happened {after} times"


def check_split_brain(
    scenario: Scenario, undisturbed: Moment, struck: Moment, taken: Moment | None, end: Moment
) -> None:
    """Every promise, after a worker was stopped, another took over, and the first went on.

    Args:
        taken: when the other worker had finished, or had nothing left to do but wait; None if the
            first went on before that.
    """
    _nothing_is_lost(undisturbed, end)
    _the_record_is_whole(end)
    _history_is_as_undisturbed(undisturbed, end)
    assert end.paid - undisturbed.paid in (0, 1), "the request that was in flight"
    assert not end.asked, "the late worker's word settles what it left in doubt"
    assert end.happened.keys() == undisturbed.happened.keys(), "repeated with the same key only"
    for key, policy in _policies(scenario, undisturbed).items():
        repeats = 1 if policy in ("read", "idempotent") else 0
        assert 0 <= end.happened[key] - undisturbed.happened[key] <= repeats, f"{policy} {key}"
    if taken is None:
        return
    assert taken.run is not None
    doubted = [
        key
        for key, policy in _policies(scenario, undisturbed).items()
        if policy == "ask" and struck.state(key) == "started"
    ]
    assert taken.run["state"] == ("suspended" if doubted else "completed")
    # What the late worker wrote on, it wrote in vain.
    assert end.messages[: len(taken.messages)] == taken.messages
    assert end.attempts[: len(taken.attempts)] == taken.attempts


def check_after_many(scenario: Scenario, undisturbed: Moment, end: Moment, crashes: int) -> None:
    """What holds after any number of crashes, wherever they fell."""
    _nothing_is_lost(undisturbed, end)
    assert 0 <= end.paid - undisturbed.paid <= crashes, "one request in flight for each crash"
    for key, policy in _policies(scenario, undisturbed).items():
        usual, times = undisturbed.happened[key], end.happened[key]
        match policy:
            case "ask" | "reconcile" | "transactional":
                assert times == usual, f"{policy} {key} happened {times} times"
            case "tell":
                assert times <= usual, f"{policy} {key} happened {times} times"
            case _:
                assert usual <= times <= usual + crashes, f"{policy} {key}: {times} times"
    _the_record_is_whole(end)
    _history_is_as_undisturbed(undisturbed, end)


def _nothing_is_lost(undisturbed: Moment, end: Moment) -> None:
    assert end.run is not None
    assert undisturbed.run is not None
    assert end.run["state"] == "completed", end.run
    assert end.run["output"] == undisturbed.run["output"]
    mine, usual = (json.loads(m.run["usage"]) for m in (end, undisturbed) if m.run)
    if told(end):
        # What the model is told of a call in doubt is longer than the tool's own answer.
        assert mine.pop("input_tokens") > usual.pop("input_tokens")
    assert mine == usual, "usage is counted over all attempts"
    _spending_is_counted_once(end.run, end.budgets)


def _spending_is_counted_once(run: dict[str, Any], budgets: list[dict[str, Any]]) -> None:
    """What the run has spent, it has spent from the budget that it shares: no more, no less."""
    for budget in budgets if json.loads(run["tags"]) else ():
        usage = json.loads(run["usage"])
        assert budget["spent_requests"] == usage["requests"]
        assert budget["spent_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert budget["spent_tool_calls"] == usage["tool_calls"]
        assert budget["spent_nanousd"] == run["cost_nanousd"] > 0


def _nothing_is_paid_twice(undisturbed: Moment, struck: Moment, end: Moment) -> None:
    """Only a response that was in flight at the crash is asked for again."""
    in_flight = struck.paid - struck.responses
    assert in_flight in (0, 1)
    assert end.paid == undisturbed.paid + in_flight


def _effects_keep_their_policy(
    scenario: Scenario, undisturbed: Moment, struck: Moment, end: Moment
) -> None:
    for key, policy in _policies(scenario, undisturbed).items():
        usual, before, after = (m.happened[key] for m in (undisturbed, struck, end))
        state = struck.state(key)
        what = f"{policy} {key}: {before} times and {state} at the crash, {after} in the end"
        doubted = state == "started"
        answered = undisturbed.responses_before(undisturbed.effects[key]["response"]) + 1
        if policy not in ("read", "idempotent") and answered in struck.requests:
            assert state in SETTLED, f"its outcome is committed before anything else: {what}"
        assert (end.asked[key] > 0) == (policy == "ask" and doubted), f"asked or not: {what}"
        if state in SETTLED:
            assert after == before, f"a finished tool stays finished: {what}"
        elif policy in ("read", "idempotent") or (policy == "retry" and doubted):
            assert after == before + usual, what
        elif policy == "tell" and doubted:
            assert after == before <= usual, what
        else:
            assert after == usual, what


def _approvals_are_given_once_and_first(
    scenario: Scenario, undisturbed: Moment, struck: Moment, end: Moment
) -> None:
    wanted = {
        key: 1
        for key, effect in undisturbed.effects.items()
        if scenario.policies[effect["tool_name"]].endswith("approved")
    }
    assert undisturbed.approved == wanted
    assert end.approved == wanted, "nobody is asked twice, and nothing is approved by a crash"
    acted = {key for key in wanted if struck.happened[key]}
    assert acted <= struck.approved.keys(), "it happened before it was approved"


def _half_messages_are_taken_back(undisturbed: Moment, struck: Moment, end: Moment) -> None:
    """Where there were pieces of a message that did not come, and only there.

    An attempt that waits for somebody takes back the results that it has, until it goes on.
    """
    assert undisturbed.withdrawn == []
    waited = [a["attempt"] for a in end.attempts if a["outcome"] == "suspended"]
    crashed = [attempt for attempt in end.withdrawn if attempt not in waited]
    assert crashed == ([1] if struck.deltas else []), f"{struck.deltas} pieces at the crash"


def _the_record_is_whole(end: Moment) -> None:
    assert end.deltas == 0, "every message is there, whole"
    for attempt in end.attempts:
        assert attempt["outcome"] and attempt["ended_at"], attempt
    for effect in end.effects.values():
        told = effect["state"] == "in_doubt" and effect["on_doubt"] == "tell" and effect["result"]
        assert effect["state"] in SETTLED or told, effect
        assert not effect["asked"], effect


def _history_is_as_undisturbed(undisturbed: Moment, end: Moment) -> None:
    mine, usual = (readable(m.messages, told(end)) for m in (end, undisturbed))
    assert mine == usual
    texts = json.dumps([json.loads(message["body"]) for message in end.messages])
    assert texts.count("The outcome of this call") == len(told(end))


def told(moment: Moment) -> set[str]:
    """The calls of which the model was told that nobody knows, by idempotency key."""
    return {key for key, effect in moment.effects.items() if effect["state"] == "in_doubt"}


def _policies(scenario: Scenario, undisturbed: Moment) -> dict[str, str]:
    """The policy of each call of the run, by idempotency key."""
    return {
        key: scenario.policies[effect["tool_name"]].partition(" ")[0].rstrip(",")
        for key, effect in undisturbed.effects.items()
    }


def readable(messages: list[dict[str, Any]], unknown: set[str]) -> list[Any]:
    """Messages without what differs between any two runs, or was told of a call in doubt."""
    found = [_without_times(json.loads(message["body"])) for message in messages]
    response = None
    for row, message in zip(messages, found, strict=True):
        if row["kind"] == "response":
            response = row["seq"]
            if unknown:
                del message["usage"]["input_tokens"]  # Other text, other tokens.
            continue
        for part in message["parts"]:
            call = str(part.get("tool_call_id")).removeprefix("call_")
            if f"{KEY}:{response}.{call}" in unknown:
                part["content"] = None
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _without_times(inner)
            for name, inner in value.items()
            if name not in ("timestamp", "run_id", "conversation_id")
        }
    if isinstance(value, list):
        return [_without_times(inner) for inner in value]
    return value
