"""What must hold in every state, and across every step; numbered as the promises of the design.

Stated on what can be seen from outside: rows, and what tools really did. How the protocol brings
it about is `model`'s.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.ledger import FINAL, Ledger
from protocol.model import ONCE, Action, Size, State, is_good

SETTLE_LATE = ("settle_late", "withdraw")
"""The only operations by which an attempt may still say something after it is over."""


# --- in every state


def suspended_says_on_what(size: Size, state: State) -> bool:
    """1. Nothing is lost: a suspended run asks somebody for something."""
    return state.ledger.state != "suspended" or state.ledger.asks()


def a_crash_costs_one_response(size: Size, state: State) -> bool:
    """2. Nothing is paid twice: an attempt wastes at most the one request in flight."""
    return state.requests <= len(state.ledger.messages) + state.ledger.attempt


def messages_are_stored_once(size: Size, state: State) -> bool:
    """2. Nothing is paid twice: each response is in the history once, in its place."""
    messages = state.ledger.messages
    return messages == tuple(range(len(messages)))


def finished_stays_finished(size: Size, state: State) -> bool:
    """3. Finished tools stay finished: no attempt that holds the run repeats one."""
    return not any(call.repeated for call in state.calls)


def nothing_acts_unsaved(size: Size, state: State) -> bool:
    """2. Nothing is paid twice: no tool acted for a response that would be asked for again."""
    saved = len(state.ledger.messages)
    return not any(
        state.calls[call].acts
        for response in range(saved, len(size.responses))
        for call in size.calls_of(response)
    )


def nothing_repeats_silently(size: Size, state: State) -> bool:
    """4. No silent repeat: a `once` tool acts once, and again for each word that it did not.

    A tool that was overtaken, begun in time and slower than its lease, is the case that nobody
    can rule out; its call is in doubt, and whoever says that it did not happen has to know.
    """
    return all(
        call.acts <= (call.allowed if call.overtaken else 1)
        for policy, call in zip(size.policies, state.calls, strict=True)
        if policy in ONCE and policy != "retry"
    ) and all(call.acts <= call.allowed for call in state.calls)


def what_happened_is_recorded(size: Size, state: State) -> bool:
    """4. No silent repeat: of a `once` tool that acted, the ledger knows at least that it may."""
    return all(
        effect is not None and effect.state not in ("awaiting", "denied")
        for policy, call, effect in zip(
            size.policies, state.calls, state.ledger.effects, strict=True
        )
        if policy in ONCE and call.acts and not call.overtaken
    )


def nothing_is_made_up(size: Size, state: State) -> bool:
    """4. No silent repeat: the ledger says of no tool that it is done which did not act."""
    return all(
        call.acts
        for call, effect in zip(state.calls, state.ledger.effects, strict=True)
        if effect is not None and effect.state == "done"
    )


def nobody_acts_after_the_lease(size: Size, state: State) -> bool:
    """4. No silent repeat: no tool begins in an attempt that is over."""
    return not any(call.unleased for call in state.calls)


def doubt_begins_with_the_end(size: Size, state: State) -> bool:
    """4. No silent repeat: what an attempt left without outcome is in doubt once it is over."""
    run = state.ledger
    return all(
        effect is None or effect.state != "started" or run.holds(effect.attempt)
        for effect in run.effects
    )


def the_model_was_told_of_each_call(size: Size, state: State) -> bool:
    """4. No silent repeat: a run completes when each call is settled, or told to be unknown."""
    return state.ledger.state != "completed" or all(
        effect is not None and (effect.settled or effect.told) for effect in state.ledger.effects
    )


def writes_commit_with_their_result(size: Size, state: State) -> bool:
    """5. Exactly once in the same database: a tool's writes are there just if its result is."""
    return all(
        writes == (effect is not None and effect.state == "done")
        for policy, writes, effect in zip(
            size.policies, state.ledger.writes, state.ledger.effects, strict=True
        )
        if policy == "transactional"
    )


def a_suspended_run_holds_nobody(size: Size, state: State) -> bool:
    """7. Waiting is free: no process works on it but those that find out that it is over."""
    run = state.ledger
    return run.state != "suspended" or not any(
        p.attempt == run.attempt and p.phase not in ("ending", "lost") for p in state.processes
    )


# --- across every step


def settled_stays_settled(before: State, action: Action, after: State) -> bool:
    """3. Finished tools stay finished: a recorded outcome never changes, nor what was told."""
    return all(
        old is None or ((not old.settled or new == old) and (not old.told or new is not None))
        for old, new in zip(before.ledger.effects, after.ledger.effects, strict=True)
    )


def only_the_current_attempt_writes(before: State, action: Action, after: State) -> bool:
    """6. One writer: an attempt that is over changes nothing but what became of its own calls."""
    if not action.attempt or before.ledger.holds(action.attempt) or action.name == "claim":
        return True
    old, new = before.ledger._replace(ends=()), after.ledger._replace(ends=())
    if action.name not in SETTLE_LATE:
        return old == new
    return _but_for_its_call(old, action) == _but_for_its_call(new, action)


def _but_for_its_call(ledger: Ledger, action: Action) -> Ledger:
    """A ledger without what late evidence may change: its own call, and whether the run sleeps."""
    assert action.call is not None
    effect = ledger.effects[action.call]
    if effect is not None and effect.attempt == action.attempt:
        ledger = ledger.with_effect(action.call, None)
    woken = ledger.state == "suspended"
    return ledger._replace(state="available") if woken else ledger


def leaving_costs_nothing(before: State, action: Action, after: State) -> bool:
    """8. Deploys are boring: suspending and handing back spend neither failures nor crashes."""
    if action.name not in ("suspend", "hand_back"):
        return True
    counted = (after.ledger.failures, after.ledger.crashes)
    return counted == (before.ledger.failures, before.ledger.crashes)


def the_healthy_keep_their_runs(before: State, action: Action, after: State) -> bool:
    """11. Health is not progress: only a process that died or froze loses its run."""
    holder = [p for p in before.processes if p.attempt == before.ledger.attempt]
    return action.name != "rescue" or not any(not p.lapsed for p in holder)


def lost_leases_are_no_failures(before: State, action: Action, after: State) -> bool:
    """11. Health is not progress: a lost lease is counted as a crash, apart from failures."""
    if action.name != "rescue":
        return True
    return (after.ledger.failures, after.ledger.crashes) == (
        before.ledger.failures,
        before.ledger.crashes + 1,
    )


def history_only_grows(before: State, action: Action, after: State) -> bool:
    """3. Finished tools stay finished: what the history and the attempts' ends say, they keep."""
    old, new = before.ledger, after.ledger
    ended = all(
        was is None or now in (was, "over") for was, now in zip(old.ends, new.ends, strict=False)
    )
    return (
        new.messages[: len(old.messages)] == old.messages
        and ended
        and new.attempt >= old.attempt
        and (old.state not in FINAL or new.state == old.state or action.name == "revive")
    )


# --- wherever nothing is left that must happen


def at_rest_it_has_ended_or_asks(size: Size, state: State) -> bool:
    """1. Nothing is lost: left alone, every run comes to an end, or says on what it waits."""
    return is_good(state)


def who_knows_has_said_so(size: Size, state: State) -> bool:
    """4. No silent repeat: a call stays in doubt only where nobody lived to tell how it ended.

    Or where it was given up meanwhile: evidence comes too late for a call that was begun again.
    """
    return not any(
        effect is not None
        and effect.state == "in_doubt"
        and call.acts
        and not (call.unheard or call.overtaken or policy == "retry")
        for policy, call, effect in zip(
            size.policies, state.calls, state.ledger.effects, strict=True
        )
    )


IN_EVERY_STATE: list[Callable[[Size, State], bool]] = [
    suspended_says_on_what,
    a_crash_costs_one_response,
    messages_are_stored_once,
    nothing_acts_unsaved,
    finished_stays_finished,
    nothing_repeats_silently,
    what_happened_is_recorded,
    nothing_is_made_up,
    nobody_acts_after_the_lease,
    doubt_begins_with_the_end,
    the_model_was_told_of_each_call,
    writes_commit_with_their_result,
    a_suspended_run_holds_nobody,
]

ACROSS_EVERY_STEP: list[Callable[[State, Action, State], bool]] = [
    settled_stays_settled,
    only_the_current_attempt_writes,
    leaving_costs_nothing,
    the_healthy_keep_their_runs,
    lost_leases_are_no_failures,
    history_only_grows,
]

AT_REST: list[Callable[[Size, State], bool]] = [
    at_rest_it_has_ended_or_asks,
    who_knows_has_said_so,
]
