"""What may be done now: about a run, about one of its calls. Pure, from what the ledger said last.

Owns which actions are offered; that each counts once, and is refused when it comes too late, is the
ledger's. Whoever shows a choice asks here, and compares no states.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from durably.lifecycle import EffectState, RunState, allowed

if TYPE_CHECKING:
    from durably.records import Effect, InboxItem, RunRecord

RUN_ACTIONS = ("cancel", "retry", "raise_budget", "signal")
"""What may be done about a run as a whole."""

CALL_DECISIONS = ("approve", "edit", "deny", "answer", "done", "failed", "again")
"""What may be decided about a call: ``edit`` is to approve it with other arguments, the last three
are what `Run.resolve` takes."""


def run_actions(run: RunRecord) -> tuple[str, ...]:
    """Which of `RUN_ACTIONS` a run allows.

    To retry a run of a thread may be refused all the same, if later runs of it have begun.
    """
    going = not run.state.final
    offered = {
        "cancel": allowed("cancel", run.state) and run.cancel_requested_at is None,
        "retry": allowed("revive", run.state) or waits_for_operator(run),
        "raise_budget": going,
        "signal": going,
    }
    return tuple(action for action in RUN_ACTIONS if offered[action])


def waits_for_operator(run: RunRecord) -> bool:
    """True if a retry lets a suspended run go on: its agent changed, or a budget is used up."""
    kind = (run.waiting_on or {}).get("kind")
    return run.state is RunState.SUSPENDED and kind in ("change", "budget")


def call_decisions(run: RunRecord, effect: Effect) -> tuple[str, ...]:
    """Which of `CALL_DECISIONS` a call of this run allows."""
    return () if run.state.final else _decisions(effect)


def item_decisions(item: InboxItem) -> tuple[str, ...]:
    """What may be done about an item of the inbox: a call's decisions, or about the run."""
    if item.effect is not None:
        return _decisions(item.effect)
    # A budget that runs share is set, not raised for one of them.
    more = "raise_budget" if item.waiting.get("scope") == "run" else "set_budget"
    return (more, "retry", "cancel")


def _decisions(effect: Effect) -> tuple[str, ...]:
    if effect.of_wait or effect.state.settled:
        return ()
    match effect.state:
        case EffectState.IN_DOUBT if effect.told:
            return ("done", "failed")
        case EffectState.IN_DOUBT:
            return ("done", "failed", "again")
        case EffectState.AWAITING if effect.asked and effect.ask == "approval":
            return ("approve", "edit", "deny")
        case EffectState.AWAITING if effect.asked:
            return ("answer", "deny")
        case _:
            return ()
