"""What is promised to everybody who waits, or is waited for: checks on all that a ledger holds.

Owns what must be true after any operation; what happens, and when, is the tests'.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import NamedTuple

from durably.ledger import decisions, reads, waits
from durably.ledger.operations import Operation
from durably.lifecycle import EffectState, RunState
from durably.records import CallPosition, Decision, Effect, RunRecord, Signal
from support.ledgers import Clock

ASKED = [CallPosition(1, 1), CallPosition(1, 2)]
"""Calls that wait for people before they run."""

type Place = tuple[int, CallPosition]
"""A run and a call of it, or a wait inside."""


class RunView(NamedTuple):
    """Everything that waits, or was waited for, in one run."""

    run: RunRecord
    effects: dict[CallPosition, Effect]
    signals: list[Signal]
    decisions: list[Decision]
    events: int


def look() -> Operation[dict[int, RunView]]:
    """All there is, by the run's id."""
    views: dict[int, RunView] = {}
    for run in (yield from reads.list_runs(None, None, None, None, None, 1000)):
        views[run.id] = RunView(
            run,
            {e.position: e for e in (yield from reads.list_effects(run.id))},
            (yield from waits.list_signals(run.id)),
            (yield from reads.list_decisions(run.id)),
            len((yield from reads.list_events(run.id, 0, 10_000))),
        )
    return views


class Promises:
    """What is known of a ledger while things happen to it.

    Attributes:
        views: all that it held when it was last looked at.
        decided: how many decisions were accepted.
        due: when the time of each wait and question was to be over, as it was first said.
        revived: runs that somebody retried; these may outlive their parents.
    """

    clock: Clock
    views: dict[int, RunView]
    decided: int
    due: dict[Place, datetime]
    revived: set[int]

    def nobody_is_stranded(self, view: RunView) -> None:
        run, effects = view.run, view.effects
        if run.state is not RunState.SUSPENDED:
            return
        assert run.waiting_on is not None
        asked = [e for e in effects.values() if e.asked and not e.state.settled]
        named = [w["call_id"] for w in run.waiting_on.get("waits", ())]
        waited = [e for e in map(effects.get, map(CallPosition.from_id, named)) if e is not None]
        assert len(waited) == len(named)
        assert all(e.state is EffectState.AWAITING for e in waited), "one is over: it is woken"
        assert asked or waited, "nothing that it waits for is open"
        if run.waiting_on["kind"] == "effects":
            assert asked, "all is decided: it is woken"
        for effect in waited:
            self.will_end(view, effect)

    def will_end(self, view: RunView, wait: Effect) -> None:
        """Somebody can still end a wait, and will be listened to."""
        match wait.ask:
            case "timer":
                assert wait.expires_at is not None
            case "signal":
                names = [s.name for s in view.signals if s.taken_by is None]
                assert wait.awaits not in names, "it has been sent"
                assert "timeout" not in wait.request or wait.expires_at is not None
            case _:
                child = next(v.run for v in self.views.values() if v.run.key == wait.awaits)
                assert not child.state.final or child.tells_end, "its end was told to nobody"

    def signals_are_taken_in_order(self, view: RunView) -> None:
        takers = [s.taken_by for s in view.signals if s.taken_by is not None]
        assert len(set(takers)) == len(takers), "a wait takes one signal"
        ids = [s.signal_id for s in view.signals if s.signal_id is not None]
        assert len(set(ids)) == len(ids)
        for name in ("go", "stop"):
            taken = [s.taken_by is not None for s in view.signals if s.name == name]
            assert taken == sorted(taken, reverse=True), "first sent, first taken"
        for signal in view.signals:
            if signal.taken_by is not None:
                wait = view.effects[signal.taken_by]
                assert wait.state is EffectState.DONE and wait.awaits == signal.name
                returned = {"return": {"return_value": signal.payload}}
                assert json.loads(wait.result or "null") == returned
        waiting = {e.awaits for e in view.effects.values() if e.state is EffectState.AWAITING}
        left = {s.name for s in view.signals if s.taken_by is None}
        assert not waiting & left, "who waits is given what is there"

    def nothing_rings_early(self, view: RunView) -> None:
        for position, effect in view.effects.items():
            place = view.run.id, position
            if effect.expires_at is not None:
                assert self.due.setdefault(place, effect.expires_at) == effect.expires_at
            by_clock = effect.resolved_by in (waits.BY_CLOCK, decisions.BY_CLOCK)
            if by_clock and place in self.due:
                assert self.due[place] <= self.clock.now

    def settled_stays_settled(self, before: RunView, after: RunView) -> None:
        for position, effect in before.effects.items():
            if not effect.state.settled:
                continue
            now = after.effects[position]
            again = effect.ask == "child" and effect.state is EffectState.FAILED
            assert now == effect or (again and now.state is EffectState.DONE)
        assert after.decisions[: len(before.decisions)] == before.decisions
        assert after.events >= before.events

    def each_is_decided_once(self) -> None:
        made = [d for view in self.views.values() for d in view.decisions]
        assert len(made) == self.decided, "what is said counts once, what is refused never"
        for view in self.views.values():
            said = Counter((d.position, d.decision) for d in view.decisions)
            for position in ASKED:
                effect = view.effects.get(position)
                final = said[position, "approved"] + said[position, "denied"]
                final += said[position, "answered"]
                if effect is not None and effect.on_expiry == "deny":
                    final += said[position, "expired"]
                assert final <= 1

    def families_end_together(self) -> None:
        for view in self.views.values():
            child = view.run
            if child.parent_id is None:
                continue
            parent = self.views[child.parent_id]
            named = [e for e in parent.effects.values() if e.awaits == child.key]
            assert named, "a child is started with the wait for it"
            if parent.run.state.final and not parent.run.tells_end:
                ends = child.state.final or child.cancel_requested_at is not None
                assert ends or child.id in self.revived, "it outlives its parent"
            if not child.state.final or child.tells_end or self.revived:
                continue
            settled = all(wait.state.settled for wait in named)
            assert settled or parent.run.state.final, "it ended, and was told"
