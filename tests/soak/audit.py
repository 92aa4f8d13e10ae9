"""What must hold after a soak, one function for each promise; each yields what contradicts it.

Owns what runs, payments and effects must be; histories, events and threads are `audit_histories`',
waits, budgets and what must not be left are `audit_waits`'.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from crash.databases import instant
from soak.evidence import FINAL, Evidence, RunEvidence

type Check = Callable[[Evidence], Iterator[str]]

NONCE = re.compile(r"#[0-9a-f]{16}")

IN_VAIN = ("lost", "handed_back", "cancelled")
"""How an attempt ends that loses the response that it has asked for."""


def nothing_is_lost(evidence: Evidence) -> Iterator[str]:
    """Every run that was acknowledged, or committed, has its end or says what it waits for."""
    for key in evidence.acknowledged:
        if key not in evidence.runs:
            yield f"Run {key} was acknowledged, and is gone."
    for run in evidence.runs.values():
        if run.state == "suspended" and run.scenario == "parked":
            if not run.row["waiting_on"]:
                yield f"Run {run.key} is suspended, and does not say on what."
        elif run.state not in FINAL:
            yield f"Run {run.key} has no end: it is {run.state}, attempt {run.row['attempt']}."
        elif run.state not in _allowed_ends(run, evidence):
            yield f"Run {run.key} ({run.scenario}) is {run.state}: {run.row['error']}"
        ordered = evidence.booked[f"order {run.key}"]
        if run.scenario == "ordered" and ordered != 1:
            yield f"Run {run.key} exists, and what was committed with it is there {ordered} times."
    for key in evidence.booked:
        if key.startswith("order ") and key.removeprefix("order ") not in evidence.runs:
            yield f"{key} was committed, and the run that was enqueued with it is gone."


def _allowed_ends(run: RunEvidence, evidence: Evidence) -> tuple[str, ...]:
    if run.scenario == "doomed":
        return ("completed", "cancelled")
    later = [
        evidence.acknowledged.get(other.key)
        for other in evidence.threads.get(run.row["thread"] or "", [])
        if other.row["id"] > run.row["id"]
    ]
    # Of one whose client died before it was told, nobody knows whether it interrupts.
    if any(said is None or said["busy"] == "interrupt" for said in later):
        return ("completed", "cancelled")
    return ("completed",)


def nothing_is_paid_twice(evidence: Evidence) -> Iterator[str]:
    """A response that was saved is never asked for again; an attempt loses one at most."""
    for run in evidence.runs.values():
        in_vain: Counter[int] = Counter()
        for number, payments in _payments(run).items():
            saved = run.responses[number] if number < len(run.responses) else None
            for attempt, nonces in payments.items():
                if len(nonces) > 1:
                    times = f"paid {len(nonces)} times for response {number}"
                    yield f"Attempt {attempt} of run {run.key} {times}."
                if saved is not None and attempt > saved["attempt"]:
                    yield (
                        f"Run {run.key} paid again for response {number} in attempt {attempt}: "
                        f"attempt {saved['attempt']} had saved it."
                    )
                if saved is None or attempt != saved["attempt"]:
                    in_vain[attempt] += len(nonces)
                elif nonces != [nonce_of(saved["body"])]:
                    yield f"Response {number} of run {run.key} is none that was paid: {nonces}."
        for attempt, times in in_vain.items():
            outcome = run.outcomes.get(attempt)
            if times > 1 or outcome not in IN_VAIN:
                yield (
                    f"Attempt {attempt} of run {run.key} ended as {outcome}, and {times} responses "
                    "that it paid for are lost."
                )
        if len(_payments(run)) < len(run.responses):
            yield f"Run {run.key} has responses that nobody paid for."


def _payments(run: RunEvidence) -> dict[int, dict[int, list[str]]]:
    """The nonces of what was paid: by number of the response, and attempt."""
    found: dict[int, dict[int, list[str]]] = {}
    for paid in run.deeds.paid:
        found.setdefault(paid["response"], {}).setdefault(paid["attempt"], []).append(paid["nonce"])
    return found


def finished_tools_stay_finished(evidence: Evidence) -> Iterator[str]:
    """Once a call has a recorded outcome, no later attempt makes it."""
    for run in evidence.runs.values():
        for effect in run.effects:
            if effect["state"] not in ("done", "failed", "denied"):
                continue
            for acted in run.deeds.acted.get(effect["idempotency_key"], []):
                if acted["attempt"] > effect["attempt"]:
                    yield (
                        f"Call {effect['idempotency_key']} ({effect['tool_name']}) was recorded "
                        f"by attempt {effect['attempt']}, and made by attempt {acted['attempt']}."
                    )


def no_silent_repeat(evidence: Evidence) -> Iterator[str]:
    """Each call happened as often as its policy allows, and nothing that was not recorded first."""
    for run in evidence.runs.values():
        recorded = {effect["idempotency_key"]: effect for effect in run.effects}
        for key, acts in run.deeds.acted.items():
            by_attempt = Counter(act["attempt"] for act in acts)
            if twice := [attempt for attempt, times in by_attempt.items() if times > 1]:
                yield f"Attempt {twice[0]} made call {key} ({acts[0]['tool']}) more than once."
            if key not in recorded and acts and not _may_be_unknown(run, acts):
                yield f"Call {key} ({acts[0]['tool']}) happened, and nothing is recorded of it."
        for key, effect in recorded.items():
            yield from _check_times(run, effect, len(run.deeds.acted.get(key, [])))


def _may_be_unknown(run: RunEvidence, acts: list[dict[str, Any]]) -> bool:
    """What may be repeated is recorded with its result: the end of a run may come first."""
    return run.state == "cancelled" and acts[0]["tool"] in ("look", "sync", "hiccup", "work")


def _check_times(run: RunEvidence, effect: dict[str, Any], times: int) -> Iterator[str]:
    policy, state = run.policy(effect), effect["state"]
    most, least = 1, 1 if state == "done" else 0
    match policy:
        case "" | "transactional":
            most = least = 0
        case "read" | "idempotent" | "once, retry":
            most = len(run.attempts)
        case "once, approved" if state == "denied":
            most = 0
        case _:
            pass
    if not least <= times <= most:
        yield (
            f"Call {effect['idempotency_key']} ({effect['tool_name']}, {policy}) is {state}, and "
            f"happened {times} times: {run.deeds.acted.get(effect['idempotency_key'])}"
        )
    told = policy == "once, tell" and state == "in_doubt" and effect["result"]
    if state == "started" or (state in ("in_doubt", "awaiting") and run.completed and not told):
        yield f"Call {effect['idempotency_key']} is {state}, and its run {run.state}."


def nothing_acts_before_it_is_saved(evidence: Evidence) -> Iterator[str]:
    """Each effect was asked for by a response that is in the history."""
    for run in evidence.runs.values():
        saved = {message["seq"]: nonce_of(message["body"]) for message in run.responses}
        for key, acts in run.deeds.acted.items():
            response = int(key.removeprefix(f"{run.key}:").partition(".")[0])
            for act in acts:
                if saved.get(response) != act["nonce"]:
                    yield (
                        f"Call {key} ({act['tool']}) was made for response {act['nonce']}, and "
                        f"the history has {saved.get(response)} there."
                    )


def transactions_hold_both(evidence: Evidence) -> Iterator[str]:
    """What a transactional tool wrote is there once if its result is, and not at all if not."""
    done: Counter[str] = Counter()
    for run in evidence.runs.values():
        for effect in run.effects:
            if run.policy(effect) == "transactional" and effect["state"] == "done":
                done[effect["idempotency_key"]] += 1
    for key in done | evidence.booked:
        if not key.startswith("order ") and done[key] != evidence.booked[key]:
            yield f"Call {key}: {done[key]} results, and {evidence.booked[key]} rows of its tool."


def one_attempt_at_a_time(evidence: Evidence) -> Iterator[str]:
    """Attempts are numbered without a gap, have an end, and the next begins after it."""
    for run in evidence.runs.values():
        numbers = [row["attempt"] for row in run.attempts]
        if numbers != list(range(1, run.row["attempt"] + 1)):
            yield f"Run {run.key} is at attempt {run.row['attempt']}, and has attempts {numbers}."
        for row in run.attempts:
            if not row["outcome"] or not row["ended_at"]:
                yield f"Attempt {row['attempt']} of run {run.key} has no end."
        for before, after in pairwise(run.attempts):
            if not before["ended_at"] or instant(after["started_at"]) < instant(before["ended_at"]):
                yield f"Attempts {before['attempt']} and the next of run {run.key} overlap."
        outcomes = Counter(run.outcomes.values())
        for name, counter in (("lost", "crashes"), ("failed", "failures")):
            if outcomes[name] != run.row[counter]:
                yield f"Run {run.key} counts {run.row[counter]} {counter}, of {outcomes[name]}."
        if outcomes["failed"] > (run.scenario == "hiccup"):
            errors = [row["error"] for row in run.attempts if row["outcome"] == "failed"]
            yield f"Run {run.key} ({run.scenario}) failed, and should not: {errors[-1]}"
        last = run.outcomes.get(run.row["attempt"])
        if run.completed and not run.was_steered and last != "completed":
            yield f"Run {run.key} is completed, and its last attempt is {last}."


def nonce_of(body: dict[str, Any]) -> str | None:
    """What tells a response from every other: each of its parts says it."""
    found = set(NONCE.findall(str(body["parts"])))
    return found.pop() if len(found) == 1 else None
