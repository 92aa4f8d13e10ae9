"""What the cost tests of both databases share: which statements may not look through a table."""

from __future__ import annotations

from durably.ledger.steps import Step
from support.ledgers import done, message, tool_call

PER_STEP = {"insert_message", "insert_event", "insert_intent", "record_outcome", "touch_run"}
PER_STEP |= {"hold_run", "withdraw_intent", "get_effect", "settle_late", "withdraw_late"}
PER_STEP |= {"doubt_effect", "ask_person", "return_approved"}
PER_STEP |= {"insert_wait", "get_wait", "settle_wait", "find_wait", "take_signal", "expect_ends"}
PER_ATTEMPT = {"claim_runs", "claim_run", "next_due", "insert_attempt", "end_attempt"}
PER_ATTEMPT |= {"complete_run", "fail_run", "discard_run", "suspend_run", "hand_back_run"}
PER_ATTEMPT |= {"stop_run", "doubt_effects", "wake_settled_run", "list_messages", "list_effects"}
PER_ATTEMPT |= {"get_queue"}
PER_LOOK = {"count_orphans", "list_orphans", "rescue_run", "held_runs", "register_worker"}
PER_LOOK |= {"approve_effect", "decide_effect", "insert_decision", "list_decisions", "add_tag"}
PER_LOOK |= {"wake_waiting_run", "insert_signal", "list_signals", "list_open_children"}
PER_LOOK |= {"list_children", "find_child_waits"}
PER_LOOK |= {"list_expired", "stop_expiry", "list_untold_ends", "told_end"}
PER_LOOK |= {"get_run", "list_events", "list_inbox", "find_recent_run", "insert_run", "prune_runs"}


def step_of(number: int) -> Step:
    """What a step writes: a response, the request that answers it, and an effect."""
    first = 100 + 2 * number
    return Step(
        usage='{"requests": 100}',
        messages=(message(first, '"response"'), message(first + 1, '"request"')),
        outcomes=(done(tool_call(first)),),
        events=(("step", {"messages": [first, first + 1]}),),
    )
