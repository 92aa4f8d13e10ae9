"""What the cost tests of both databases share: which statements may not look through a table."""

from __future__ import annotations

import re

from durably.ledger.postgres.statements import statements
from durably.ledger.written import Step
from support.ledgers import done, message, tool_call

PER_STEP = {"insert_message", "insert_event", "insert_two_messages", "insert_two_events"}
PER_STEP |= {"insert_intent", "record_outcome", "touch_run"}
PER_STEP |= {"hold_run", "withdraw_intent", "get_effect", "settle_late", "withdraw_late"}
PER_STEP |= {"doubt_effect", "ask_person", "return_approved"}
PER_STEP |= {"insert_wait", "get_wait", "settle_wait", "find_wait", "take_signal", "expect_ends"}
PER_STEP |= {"budgets_of", "add_spending"}
PER_STEP |= {"insert_delta", "newest_delta", "first_delta", "drop_deltas"}
PER_ATTEMPT = {"claim_runs", "claim_run", "next_due", "insert_attempt", "end_attempt"}
PER_ATTEMPT |= {"complete_run", "fail_run", "discard_run", "suspend_run", "hand_back_run"}
PER_ATTEMPT |= {"stop_run", "doubt_effects", "wake_settled_run", "list_messages", "list_effects"}
PER_ATTEMPT |= {"first_in_line", "last_in_line", "release_run", "find_shared_end", "share_end"}
PER_ATTEMPT |= {"list_steers", "take_steer", "list_earlier_runs", "list_earlier_messages"}
PER_ATTEMPT |= {"list_last_effects", "list_unanswered_prompts"}
PER_LOOK = {"count_orphans", "list_orphans", "rescue_run", "held_runs", "register_worker"}
PER_LOOK |= {"lease_anew", "time_now"}
PER_LOOK |= {"wake_waiting_run", "insert_signal", "list_signals", "list_open_children"}
PER_LOOK |= {"list_children", "find_child_waits"}
PER_ATTEMPT |= {"get_queue", "insert_call_notices", "insert_notice"}
PER_LOOK |= {"approve_effect", "decide_effect", "insert_decision", "list_decisions", "escalate_run"}
PER_LOOK |= {"find_due_notice", "claim_notices", "find_waiting_call", "find_waiting_run"}
PER_LOOK |= {"list_path", "settle_notice", "postpone_notice", "drop_notice", "forget_notices"}
PER_LOOK |= {"count_given_up"}
PER_LOOK |= {"list_expired", "stop_expiry", "list_untold_ends", "told_end"}
PER_LOOK |= {"list_interrupts", "interrupted", "find_follower", "revive_run"}
PER_LOOK |= {"list_budget_waits", "list_waits_for_budget", "list_budget_inbox", "get_budget"}
PER_LOOK |= {"wake_funded_run", "set_run_budget", "set_budget", "remove_budget"}
PER_LOOK |= {"list_last_messages", "newest_end", "list_facts"}
PER_LOOK |= {"get_run", "list_events", "list_inbox", "find_recent_run", "insert_run", "prune_runs"}
PER_LOOK |= {"insert_action", "list_actions", "list_actions_on_run", "prune_actions"}
PER_LOOK |= {
    "ended_between",
    "ended_together",
    "count_ended",
    "count_state",
    "count_asked",
    "count_budget_waits",
}
PER_LOOK |= {"ids_before", "ids_of_state_before", "ids_of_thread_before", "ends_of_ids"}
PER_LOOK |= {"list_stopped", "insert_runs", "insert_inputs", "insert_enqueued_events"}
PER_ATTEMPT |= {"begin_attempts", "insert_claimed_events"}
PER_LOOK |= {"run_from_id", "search_runs", "count_open_runs"}


def step_of(number: int) -> Step:
    """What a step writes: a response, the request that answers it, and an effect."""
    first = 100 + 2 * number
    return Step(
        usage='{"requests": 100}',
        messages=(message(first, '"response"'), message(first + 1, '"request"')),
        outcomes=(done(tool_call(first)),),
        events=(("step", {"messages": [first, first + 1]}),),
    )


def statement_of(name: str) -> tuple[str, list[str]]:
    """A statement as PostgreSQL is given it, and its parameters in their order."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    text = re.sub(r"%\((\w+)\)s", number, statements("public")[name].decode())
    return text.replace("%%", "%"), names
