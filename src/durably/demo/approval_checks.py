"""What the verdict says about approvals: asked once, decided once, paid once, and not before.

Pure. When money moved is the payment provider's word, when it was allowed is the shop's.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime

from durably import EffectState
from durably.demo.checks import Check, amounts, equal
from durably.demo.evidence import Dealt, Evidence
from durably.demo.outside import Entry
from durably.demo.tickets import Expectation, money
from durably.demo.tools import LIMIT_CENTS


def called_for(dealt: Dealt, evidence: Evidence) -> Expectation:
    """What should come of a ticket, given what was decided about its refund."""
    rulings = [entry for entry in evidence.approvals if entry["ticket"] == dealt.ticket.id]
    if not rulings:
        return dealt.ticket.expects
    if rulings[-1]["decision"] == "denied":
        return Expectation(outcome="answered")
    return dealt.ticket.expects.model_copy(update={"cents": rulings[-1]["cents"]})


def granted(evidence: Evidence) -> list[Entry]:
    """The approvals that the shop has on record."""
    return [entry for entry in evidence.approvals if entry["decision"] == "approved"]


def approval_checks(evidence: Evidence) -> list[Check]:
    """Every check of refunds above the limit."""
    return [_asked(evidence), _decided(evidence), _paid_once(evidence), _unapproved(evidence)]


def decided(evidence: Evidence) -> str:
    """What was decided; one sentence."""
    rulings = Counter(entry["decision"] for entry in evidence.approvals)
    said = ", ".join(f"{times} {decision}" for decision, times in rulings.items())
    asked = sum(len(dealt.asked) for dealt in evidence.dealt)
    return f"{asked} refunds above {money(LIMIT_CENTS)} waited for approval: {said or '0 decided'}."


def _asked(evidence: Evidence) -> Check:
    """Once for each call above the limit, whatever was killed since."""
    should = Counter(
        (dealt.ticket.id, effect.call_id)
        for dealt in evidence.dealt
        for effect in dealt.effects
        if effect.tool_name == "refund" and _asked_cents(dealt, effect.call_id) > LIMIT_CENTS
    )
    did = Counter((dealt.ticket.id, call) for dealt in evidence.dealt for call in dealt.asked)
    return Check(
        "approvals asked",
        str(should.total()),
        str(did.total()),
        "ledger: events",
        should == did,
    )


def _asked_cents(dealt: Dealt, call_id: str) -> int:
    """The amount that the model asked for: an effect has the one that was approved."""
    before = [d.args_before for d in dealt.decisions if d.call_id == call_id]
    now = [effect.args for effect in dealt.effects if effect.call_id == call_id]
    return json.loads((before + now)[0] or "{}").get("cents", 0)


def _decided(evidence: Evidence) -> Check:
    """The ledger and the shop say the same: each once, and by whom."""
    names = ("ticket", "call", "decision", "by")
    shop = Counter(tuple(entry[name] for name in names) for entry in evidence.approvals)
    ledger = Counter(
        (dealt.ticket.id, decision.call_id, decision.decision, decision.by)
        for dealt in evidence.dealt
        for decision in dealt.decisions
    )
    asked = sum(len(dealt.asked) for dealt in evidence.dealt)
    by = ", ".join(dict.fromkeys(entry["by"] for entry in evidence.approvals)) or "nobody"
    ok = shop == ledger and shop.total() == asked
    return Check(f"decided by {by}", str(asked), str(shop.total()), "approvals.jsonl", ok)


def _paid_once(evidence: Evidence) -> Check:
    """Each approved refund was made exactly once, and not before it was approved."""
    refused = {
        (dealt.ticket.id, effect.call_id)
        for dealt in evidence.dealt
        for effect in dealt.effects
        if effect.state is EffectState.FAILED  # more than was ever paid: the tool said no
    }
    should = [e for e in granted(evidence) if (e["ticket"], e["call"]) not in refused]
    did = [
        approval["cents"]
        for approval in should
        for payments in [[p for p in evidence.payments if _for(p, approval)]]
        if len(payments) == 1 and _allowed(payments[0], approval)
    ]
    return Check(
        "paid once, when approved",
        amounts([entry["cents"] for entry in should]),
        amounts(did),
        "payments.jsonl",
        len(did) == len(should),
    )


def _unapproved(evidence: Evidence) -> Check:
    """Refunds above the limit that nobody had approved when they were made."""
    approvals = granted(evidence)
    found = [
        payment
        for payment in evidence.payments
        if payment["kind"] == "refund" and payment["cents"] > LIMIT_CENTS
        if not any(_for(payment, a) and _allowed(payment, a) for a in approvals)
    ]
    return equal("paid without approval", 0, len(found), "payments.jsonl")


def _for(payment: Entry, approval: Entry) -> bool:
    """True if the payment is what was approved."""
    same = all(payment[name] == approval[name] for name in ("ticket", "reference", "cents"))
    return same and payment["kind"] == "refund"


def _allowed(payment: Entry, approval: Entry) -> bool:
    return datetime.fromisoformat(payment["at"]) >= datetime.fromisoformat(approval["at"])
