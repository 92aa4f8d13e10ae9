"""The lifecycle table, read as rules; the ledger is held to it in tests/ledger."""

from __future__ import annotations

import pytest

from durably.lifecycle import FINAL, OPEN, TRANSITIONS, EffectState, RunState, allowed, refuse


def test_final_states_are_left_only_by_an_operators_retry() -> None:
    leaving = {name for name, t in TRANSITIONS.items() if t.sources & FINAL}
    assert leaving == {"revive"}
    assert not TRANSITIONS["revive"].sources & OPEN
    assert RunState.COMPLETED not in TRANSITIONS["revive"].sources


def test_every_open_state_can_reach_an_end() -> None:
    """Nothing is lost: from each state a way leads to each end."""
    for end in FINAL:
        reaching = {end}
        while True:
            more = {
                s for t in TRANSITIONS.values() for s in t.sources & OPEN if t.targets & reaching
            } - reaching
            if not more:
                break
            reaching |= more
        assert reaching >= OPEN


def test_only_the_transitions_of_an_attempt_are_fenced() -> None:
    fenced = {name for name, t in TRANSITIONS.items() if t.fenced}
    assert all(TRANSITIONS[name].sources == {RunState.EXECUTING} for name in fenced)
    assert fenced == {"complete", "discard", "fail", "suspend", "hand_back", "stop"}


def test_executing_is_entered_only_by_a_claim() -> None:
    entering = {
        name
        for name, t in TRANSITIONS.items()
        if RunState.EXECUTING in t.targets and t.sources != {RunState.EXECUTING}
    }
    assert entering == {"claim", "cancel"}, "cancel leaves an executing run where it is"


@pytest.mark.parametrize("state", RunState, ids=str)
def test_states_know_whether_they_are_final(state: RunState) -> None:
    assert state.final == (state in {"completed", "discarded", "cancelled"})


@pytest.mark.parametrize("state", EffectState, ids=str)
def test_effects_know_whether_they_are_settled(state: EffectState) -> None:
    assert state.settled == (state in {"done", "failed", "denied"})


def test_refusal_says_what_would_be_possible() -> None:
    assert not allowed("revive", RunState.COMPLETED)
    assert str(refuse("revive", "k", RunState.COMPLETED, "It has an output.")) == (
        "Run 'k' is completed; 'revive' is only possible from: cancelled, discarded. "
        "It has an output."
    )
