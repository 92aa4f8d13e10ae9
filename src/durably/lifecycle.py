"""The states of runs and effects, and the one table of transitions between run states.

Pure: the ledger's SQL enforces this table, tests cross the two; nothing here touches a database.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from durably.errors import TransitionRefused


class RunState(StrEnum):
    """Where a run is. The names are Oban's, so that both ledgers read the same."""

    SCHEDULED = "scheduled"
    AVAILABLE = "available"
    EXECUTING = "executing"
    RETRYABLE = "retryable"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True where nothing moves the run any more but an operator's retry."""
        return self in FINAL


FINAL = frozenset({RunState.COMPLETED, RunState.DISCARDED, RunState.CANCELLED})
"""The ends of a run. The other five are called open."""

OPEN = frozenset(RunState) - FINAL


class EffectState(StrEnum):
    """What the ledger knows of one tool call."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    AWAITING = "awaiting"
    DENIED = "denied"

    @property
    def settled(self) -> bool:
        """True where the outcome is known and handed to the model as it is."""
        return self in (EffectState.DONE, EffectState.FAILED, EffectState.DENIED)


class AttemptOutcome(StrEnum):
    """How an attempt ended, as its row in the ledger says it."""

    COMPLETED = "completed"
    FAILED = "failed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"
    SUSPENDED = "suspended"
    HANDED_BACK = "handed_back"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Transition:
    """One named way from some states to others.

    Attributes:
        name: the verb, the same in code, SQL, events and docs.
        sources: the states it may start from.
        targets: the states it may end in.
        fenced: only the run's current attempt may do it.
    """

    name: str
    sources: frozenset[RunState]
    targets: frozenset[RunState]
    fenced: bool


def _transition(
    name: str, sources: frozenset[RunState], *targets: RunState, fenced: bool
) -> Transition:
    return Transition(name, sources, frozenset(targets), fenced)


_S = RunState
_EXECUTING = frozenset({_S.EXECUTING})

TRANSITIONS: dict[str, Transition] = {
    t.name: t
    for t in (
        _transition(
            "claim",
            frozenset({_S.AVAILABLE, _S.SCHEDULED, _S.RETRYABLE}),
            _S.EXECUTING,
            fenced=False,
        ),
        _transition("complete", _EXECUTING, _S.COMPLETED, fenced=True),
        _transition("discard", _EXECUTING, _S.DISCARDED, fenced=True),
        # A cancel that the attempt did not learn of in time is carried out as it ends.
        _transition("fail", _EXECUTING, _S.RETRYABLE, _S.DISCARDED, _S.CANCELLED, fenced=True),
        _transition("suspend", _EXECUTING, _S.SUSPENDED, _S.CANCELLED, fenced=True),
        _transition("hand_back", _EXECUTING, _S.AVAILABLE, _S.CANCELLED, fenced=True),
        _transition("stop", _EXECUTING, _S.CANCELLED, fenced=True),
        # An executing run is asked to stop and its attempt does it; others end at once.
        _transition("cancel", OPEN, _S.CANCELLED, _S.EXECUTING, fenced=False),
        # A run of a thread may not be due yet when its turn comes.
        _transition("wake", frozenset({_S.SUSPENDED}), _S.AVAILABLE, _S.SCHEDULED, fenced=False),
        # A message that steered a run ends as that run does.
        _transition(
            "share",
            frozenset({_S.SUSPENDED}),
            _S.COMPLETED,
            _S.DISCARDED,
            _S.CANCELLED,
            fenced=False,
        ),
        _transition("rescue", _EXECUTING, _S.AVAILABLE, _S.DISCARDED, _S.CANCELLED, fenced=False),
        # In a thread it may have to wait for its turn.
        _transition(
            "revive",
            frozenset({_S.DISCARDED, _S.CANCELLED}),
            _S.AVAILABLE,
            _S.SUSPENDED,
            fenced=False,
        ),
    )
}
"""The state machine (DESIGN: "Lifecycle"); the only place that says what may follow what."""


def allowed(name: str, state: RunState) -> bool:
    """True if the transition may start from ``state``."""
    return state in TRANSITIONS[name].sources


def refuse(name: str, key: str, state: RunState, why: str = "") -> TransitionRefused:
    """The error for a transition that the table does not allow, saying what it would allow."""
    sources = ", ".join(sorted(TRANSITIONS[name].sources))
    detail = f" {why}" if why else ""
    return TransitionRefused(
        f"Run {key!r} is {state}; {name!r} is only possible from: {sources}.{detail}"
    )
