"""The model's ledger: what each operation of `durably.ledger` does to one run, as plain values.

Owns the rows; who calls an operation when, and what happens between two calls, is `model`'s.
An operation answers the ledger as it is afterwards, or None where it is refused. A repeated one,
as after a commit that nobody answered, is no special case: it meets what the first one left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

SETTLED = ("done", "failed", "denied")
FINAL = ("completed", "discarded", "cancelled")
ENDS = {
    "complete": "completed",
    "fail": "failed",
    "suspend": "suspended",
    "hand_back": "handed_back",
    "stop": "cancelled",
}
"""Operations that end an attempt, and how its row says afterwards that it ended."""


@dataclass(frozen=True)
class Rules:
    """What the protocol insists on. A variant leaves one of them out (see `variants`)."""

    # in the ledger
    fence: bool = True
    fenced_outcomes: bool = True
    doubt_at_end: bool = True
    late_fence: bool = True
    late_wakes: bool = True
    suspend_looks_again: bool = True
    told_stays: bool = True
    started_is_nobodys_to_resolve: bool = True
    append_once: bool = True
    settled_stays: bool = True
    rescue_asks_the_lease: bool = True
    rescue_is_no_failure: bool = True
    hand_back_is_free: bool = True
    # in an attempt and its worker
    save_first: bool = True
    intent_first: bool = True
    check_before_acting: bool = True
    lapse_is_for_good: bool = True
    late_evidence: bool = True
    one_transaction: bool = True
    find_outcome: bool = True
    withdrawn_runs_again: bool = True
    doubt_outlives_a_repeat: bool = True
    strays_handed_back: bool = True


class Effect(NamedTuple):
    """A row of `durably_effects`. `result` names where it came from; one in doubt: it was told."""

    state: str
    attempt: int
    asked: bool = False
    approved: bool = False
    result: str | None = None
    by: str | None = None

    @property
    def settled(self) -> bool:
        return self.state in SETTLED

    @property
    def told(self) -> bool:
        return self.state == "in_doubt" and self.result is not None


class Ledger(NamedTuple):
    """All that is durable of one run.

    Attributes:
        messages: of each checkpointed response, which one it is.
        effects: by call; None: no row.
        ends: how each attempt ended; None for the one under way.
        lease: of the process that holds the run: ``kept``, ``dying`` (nobody extends it any more)
            or ``over``.
        writes: how often a transactional tool's own writes were committed, by call.
    """

    state: str
    attempt: int
    failures: int
    crashes: int
    cancelling: bool
    messages: tuple[int, ...]
    effects: tuple[Effect | None, ...]
    ends: tuple[str | None, ...]
    lease: str
    writes: tuple[int, ...]

    def holds(self, attempt: int) -> bool:
        """The fence: is this the run's current attempt?"""
        return self.state == "executing" and self.attempt == attempt

    def asks(self) -> bool:
        """Whether people are asked for anything."""
        return any(e is not None and e.asked and not e.settled for e in self.effects)

    def with_effect(self, call: int, effect: Effect | None) -> Ledger:
        effects = (*self.effects[:call], effect, *self.effects[call + 1 :])
        return self._replace(effects=effects)


class Outcome(NamedTuple):
    """What an attempt says of a call in `record_outcome`, or with its next step."""

    call: int
    state: str
    result: str | None = None
    asks: bool = False


def new_ledger(calls: int) -> Ledger:
    """A run that was just enqueued."""
    return Ledger("available", 0, 0, 0, False, (), (None,) * calls, (), "kept", (0,) * calls)


def _fenced(rules: Rules, ledger: Ledger, attempt: int) -> bool:
    return ledger.holds(attempt) or (not rules.fence and ledger.state == "executing")


# --- attempts: claim, checkpoints, calls


def claim(ledger: Ledger) -> Ledger | None:
    if ledger.state not in ("available", "retryable"):
        return None
    return ledger._replace(
        state="executing", attempt=ledger.attempt + 1, ends=(*ledger.ends, None), lease="kept"
    )


def record_step(
    rules: Rules,
    ledger: Ledger,
    attempt: int,
    response: int | None = None,
    outcomes: Iterable[Outcome] = (),
) -> Ledger | None:
    """A checkpoint: perhaps a response, and outcomes that waited for the next write."""
    if not _fenced(rules, ledger, attempt):
        return None
    if response is not None:
        if rules.append_once and response < len(ledger.messages):
            return ledger  # The whole step is there: it was committed together.
        ledger = ledger._replace(messages=(*ledger.messages, response))
    for outcome in outcomes:
        ledger = _outcome(rules, ledger, attempt, outcome)
    return ledger


def record_intent(rules: Rules, ledger: Ledger, attempt: int, call: int) -> Ledger | None:
    if not _fenced(rules, ledger, attempt):
        return None
    known = ledger.effects[call]
    if known is None:
        return ledger.with_effect(call, Effect("started", attempt))
    if known.state == "in_doubt" or (known.state == "awaiting" and known.approved):
        mine = known._replace(state="started", attempt=attempt, asked=False, result=None)
        return ledger.with_effect(call, mine)
    return ledger


def record_outcome(
    rules: Rules, ledger: Ledger, attempt: int, outcome: Outcome, *, writes: bool = False
) -> Ledger | None:
    """Now, or with what a transactional tool wrote: both in this transaction or neither."""
    if rules.fenced_outcomes and not _fenced(rules, ledger, attempt):
        return None
    if writes:
        count = ledger.writes[outcome.call] + 1
        before, after = ledger.writes[: outcome.call], ledger.writes[outcome.call + 1 :]
        ledger = ledger._replace(writes=(*before, count, *after))
    return _outcome(rules, ledger, attempt, outcome)


def _outcome(rules: Rules, ledger: Ledger, attempt: int, outcome: Outcome) -> Ledger:
    known = ledger.effects[outcome.call]
    if known is None:
        known = Effect("started", attempt)
    elif outcome.asks or (known.settled and rules.settled_stays):
        return ledger  # What is recorded first stays.
    now = known._replace(state=outcome.state, asked=outcome.asks, result=outcome.result)
    return ledger.with_effect(outcome.call, now)


def record_doubt(
    rules: Rules, ledger: Ledger, attempt: int, call: int, *, tell: bool
) -> Ledger | None:
    """People are asked about a call in doubt, or the model is told of it; never inserts."""
    if not _fenced(rules, ledger, attempt):
        return None
    known = ledger.effects[call]
    if known is None or known.state not in ("started", "in_doubt"):
        return ledger
    now = known._replace(state="in_doubt", asked=not tell, result="told" if tell else None)
    return ledger.with_effect(call, now)


def withdraw(rules: Rules, ledger: Ledger, attempt: int, call: int) -> Ledger | None:
    """`withdraw_intent`, else `withdraw_late`: the call certainly did not happen."""
    known = ledger.effects[call]
    if known is None or known.attempt != attempt or known.state not in ("started", "in_doubt"):
        return None
    if known.told and rules.told_stays:
        return None
    if known.approved:  # The approval stays.
        ledger = ledger.with_effect(call, known._replace(state="awaiting", asked=False))
    else:
        ledger = ledger.with_effect(call, None)
    return ledger if ledger.holds(attempt) else _wake_if_settled(ledger)


def settle_late(rules: Rules, ledger: Ledger, attempt: int, call: int) -> Ledger | None:
    """Late evidence: fenced by the attempt that made the call, not by the run's."""
    known = ledger.effects[call]
    mine = known is not None and (known.attempt == attempt or not rules.late_fence)
    if known is None or not mine:
        return None
    if known.by == "late" and known.result == f"a{attempt}":
        return ledger  # Said before, and nobody heard that it was committed.
    if known.state not in ("started", "in_doubt"):
        return None
    now = known._replace(state="done", asked=False, result=f"a{attempt}", by="late")
    ledger = ledger.with_effect(call, now)
    return _wake_if_settled(ledger) if rules.late_wakes else ledger


# --- the ends of attempts


def settle(
    rules: Rules, ledger: Ledger, attempt: int, how: str, outcomes: Iterable[Outcome], limit: int
) -> Ledger | None:
    """`complete`, `fail`, `suspend`, `hand_back` or `stop`, with what waited for the next write."""
    written = record_step(rules, ledger, attempt, outcomes=outcomes)
    if written is None:
        return None
    failures = written.failures + (how == "fail")
    failures += how == "hand_back" and not rules.hand_back_is_free
    target = {
        "complete": "completed",
        "fail": "discarded" if failures >= limit else "retryable",
        "suspend": "suspended",
        "hand_back": "available",
        "stop": "cancelled",
    }[how]
    if written.cancelling and how in ("fail", "suspend", "hand_back"):
        target = "cancelled"
    over = _over(rules, written._replace(failures=failures), target, ENDS[how])
    return _wake_if_settled(over) if rules.suspend_looks_again else over


def rescue(rules: Rules, ledger: Ledger, limit: int) -> Ledger | None:
    expired = ledger.lease == "over" or not rules.rescue_asks_the_lease
    if ledger.state != "executing" or not expired:
        return None
    crashes = ledger.crashes + 1
    failures = ledger.failures + (not rules.rescue_is_no_failure)
    limited = "discarded" if crashes >= limit else "available"
    target = "cancelled" if ledger.cancelling else limited
    return _over(rules, ledger._replace(crashes=crashes, failures=failures), target, "lost")


def _over(rules: Rules, ledger: Ledger, state: str, end: str) -> Ledger:
    """What an attempt started and did not finish may have happened."""
    effects = tuple(
        e._replace(state="in_doubt")
        if e is not None and e.state == "started" and rules.doubt_at_end
        else e
        for e in ledger.effects
    )
    return ledger._replace(
        state=state, effects=effects, ends=(*ledger.ends[:-1], end), lease="kept"
    )


def _wake_if_settled(ledger: Ledger) -> Ledger:
    asleep = ledger.state == "suspended" and not ledger.asks()
    return ledger._replace(state="available") if asleep else ledger


# --- people


def resolve(rules: Rules, ledger: Ledger, call: int, *, again: bool) -> Ledger | None:
    """A person says that a call in doubt happened, or that it did not and is to run again."""
    known = ledger.effects[call]
    open_states = ("in_doubt",) if rules.started_is_nobodys_to_resolve else ("in_doubt", "started")
    if ledger.state in FINAL or known is None or known.state not in open_states:
        return None
    if not again:
        now = known._replace(state="done", asked=False, result="person", by="ann")
    elif known.told and rules.told_stays:
        return None
    elif known.approved:
        now = known._replace(state="awaiting", asked=False)
    else:
        now = None
    return _wake_if_settled(ledger.with_effect(call, now))


def decide(ledger: Ledger, call: int, *, approve: bool) -> Ledger | None:
    """A person lets a call run that waits for approval, or does not."""
    known = ledger.effects[call]
    if ledger.state in FINAL or known is None or known.state != "awaiting" or not known.asked:
        return None
    now = known._replace(asked=False, approved=True, by="ann")
    if not approve:
        now = known._replace(asked=False, state="denied", result="person", by="ann")
    return _wake_if_settled(ledger.with_effect(call, now))


def cancel(ledger: Ledger) -> Ledger | None:
    if ledger.state in FINAL:
        return None
    state = "executing" if ledger.state == "executing" else "cancelled"
    return ledger._replace(state=state, cancelling=True)


def revive(ledger: Ledger) -> Ledger | None:
    if ledger.state not in ("discarded", "cancelled"):
        return None
    return ledger._replace(state="available", failures=0, crashes=0, cancelling=False)
