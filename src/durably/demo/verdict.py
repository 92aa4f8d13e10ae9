"""The verdict: whether what was read back is what should be.

Pure: it compares evidence with the tickets' expectations and with the promises.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from durably import EffectState
from durably.demo.approval_checks import approval_checks, called_for, decided, granted
from durably.demo.checks import Check, amounts, equal
from durably.demo.evidence import Dealt, Evidence

KINDS = {"charge_card": "charge", "refund": "refund"}
"""The tools that move money, and what the provider calls it."""

WASTED = ("lost", "failed")
"""How an attempt ends that may have asked the model for a response and not saved it."""


WAITING = ("available", "scheduled", "retryable")
"""Oban's jobs that would still come."""


class Payment(NamedTuple):
    """Money that moved, or should."""

    kind: str
    ticket: str
    order: int
    cents: int


def judge(evidence: Evidence, *, scripted: bool, traps: int) -> list[Check]:
    """Every check.

    Args:
        scripted: a scripted model decides as the tickets expect. A real one decides itself: then
            what it asked for, as the ledger has it, is what should have happened.
        traps: how many workers should have been killed.
    """
    should = _called_for(evidence) if scripted else _asked_for(evidence.dealt)
    did = Counter(
        Payment(entry["kind"], entry["ticket"], entry["order"], entry["cents"])
        for entry in evidence.payments
    )
    return [
        _kills(evidence, scripted, traps),
        *_tickets(evidence, scripted),
        _mails(evidence),
        _paid("charge", should, did),
        _paid("refund", should, did),
        equal("charged or refunded twice", 0, _twice(should, did), "payments.jsonl"),
        *approval_checks(evidence),
        _books(evidence),
        *_doubts(evidence),
        *_model_calls(evidence),
        *_jobs(evidence),
    ]


def summary(evidence: Evidence) -> str:
    """What was decided, and what the kills cost; a sentence each."""
    asked, saved = len(evidence.requests), len(evidence.responses)
    cut_off = sum(_wasted_attempts(dealt) for dealt in evidence.dealt)
    attempts = sum(len(dealt.attempts) for dealt in evidence.dealt)
    oban = ""
    if evidence.jobs is not None:
        oban = f" {sum(evidence.jobs.values())} jobs of Oban began {attempts} attempts."
    return (
        f"{decided(evidence)} {len(evidence.kills)} workers were killed, {cut_off} attempts cut "
        "off or failed; each of those may cost the one response that was in flight: "
        f"{asked} requests were paid for {saved} responses.{oban}"
    )


def _kills(evidence: Evidence, scripted: bool, traps: int) -> Check:
    kills = len(evidence.kills)
    if scripted:
        # One trap is behind an approval: if nothing was approved, nobody stepped into it.
        sprung = traps if granted(evidence) else traps - 1
        return equal("workers killed (SIGKILL)", sprung, kills, "kills.jsonl")
    # Whether it charges and refunds at all is the real model's business.
    return Check(
        "workers killed (SIGKILL)", f"up to {traps}", str(kills), "kills.jsonl", kills <= traps
    )


def _tickets(evidence: Evidence, scripted: bool) -> list[Check]:
    total = len(evidence.dealt)
    answered = [d for d in evidence.dealt if d.answer is not None]
    checks = [equal("tickets answered", total, len(answered), "ledger: runs")]
    if scripted:
        right = [
            d for d in answered if d.answer and d.answer.outcome == called_for(d, evidence).outcome
        ]
        checks.append(equal("answered as called for", total, len(right), "ledger: outputs"))
    return checks


def _mails(evidence: Evidence) -> Check:
    should = Counter(d.ticket.id for d in evidence.dealt)
    did = Counter(entry["ticket"] for entry in evidence.mails)
    total = len(evidence.mails)
    return Check("mails, one a ticket", str(len(should)), str(total), "outbox.jsonl", did == should)


def _called_for(evidence: Evidence) -> Counter[Payment]:
    kinds = {"charged": "charge", "refunded": "refund"}
    return Counter(
        Payment(kinds[expects.outcome], d.ticket.id, expects.order or 0, expects.cents)
        for d in evidence.dealt
        if (expects := called_for(d, evidence)).outcome in kinds
    )


def _asked_for(dealt: Iterable[Dealt]) -> Counter[Payment]:
    found: Counter[Payment] = Counter()
    for d in dealt:
        for effect in d.effects:
            if effect.tool_name in KINDS and effect.state is EffectState.DONE:
                args = json.loads(effect.args)
                kind = KINDS[effect.tool_name]
                found[Payment(kind, d.ticket.id, args["order"], args["cents"])] += 1
    return found


def _paid(kind: str, should: Counter[Payment], did: Counter[Payment]) -> Check:
    expected = Counter({p: n for p, n in should.items() if p.kind == kind})
    found = Counter({p: n for p, n in did.items() if p.kind == kind})
    name = f"{kind}s made"
    return Check(name, _total(expected), _total(found), "payments.jsonl", expected == found)


def _total(payments: Counter[Payment]) -> str:
    return amounts([payment.cents for payment in payments.elements()])


def _twice(should: Counter[Payment], did: Counter[Payment]) -> int:
    return sum(n - should[payment] for payment, n in did.items() if n > should[payment] > 0)


def _books(evidence: Evidence) -> Check:
    """Every payment is in the shop's books once, and every order's sum agrees."""
    fields = ("kind", "ticket", "order", "cents")
    made = Counter((e["id"], *(e[f] for f in fields)) for e in evidence.payments)
    booked = Counter((e["payment_id"], *(e[f] for f in fields)) for e in evidence.booked)
    return Check(
        "payments in shop's books",
        str(made.total()),
        str(booked.total()),
        "table entries",
        made == booked and not evidence.unbalanced,
    )


def _doubts(evidence: Evidence) -> list[Check]:
    """What a kill left in doubt has been settled, and nothing else is open."""
    effects = {(d.ticket.id, e.call_id): e for d in evidence.dealt for e in d.effects}
    left = {(ticket, call) for kill in evidence.kills for ticket, call in kill["in_doubt"]}
    settled = [effects[key] for key in left if key in effects and effects[key].state.settled]
    still_open = sum(not effect.state.settled for effect in effects.values())
    return [
        equal("in doubt, then settled", len(left), len(settled), "ledger: effects"),
        equal("tool calls left open", 0, still_open, "ledger: effects"),
    ]


def _model_calls(evidence: Evidence) -> list[Check]:
    """Requests beyond the first for a response: only those in flight at a crash may be repeated."""
    asked = Counter((entry["run"], entry["step"]) for entry in evidence.requests)
    again = {d.ticket.id: 0 for d in evidence.dealt}
    for (ticket, _), times in asked.items():
        again[ticket] += times - 1
    allowed = {d.ticket.id: _wasted_attempts(d) for d in evidence.dealt}
    saved_by = {(r.ticket, r.step): r.attempt for r in evidence.responses}
    saved_already = sum(
        entry["attempt"] > saved_by.get((entry["run"], entry["step"]), entry["attempt"])
        for entry in evidence.requests
    )
    return [
        equal("model responses saved", len(asked), len(saved_by), "ledger: messages"),
        Check(
            "model calls paid again",
            f"at most {sum(allowed.values())}",
            str(sum(again.values())),
            "model-bill.jsonl",
            all(again[ticket] <= allowed[ticket] for ticket in again),
        ),
        equal("saved ones asked for again", 0, saved_already, "ledger: messages"),
    ]


def _jobs(evidence: Evidence) -> list[Check]:
    """Oban has nothing left that would start an attempt."""
    if evidence.jobs is None:
        return []
    waiting = sum(evidence.jobs.get(state, 0) for state in WAITING)
    return [equal("jobs that still wait", 0, waiting, "table oban_jobs")]


def _wasted_attempts(dealt: Dealt) -> int:
    return sum(attempt.outcome in WASTED for attempt in dealt.attempts)


def right(checks: Sequence[Check]) -> bool:
    """True if nothing is wrong."""
    return all(check.ok for check in checks)
