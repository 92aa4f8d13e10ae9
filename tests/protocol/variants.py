"""Known-bad variants: the protocol with one rule left out, and the promise that this breaks.

Owns nothing that runs by itself: a search that finds no fault with one of these is no search.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocol import promises
from protocol.ledger import Rules
from protocol.model import KINDS, Size


@dataclass(frozen=True)
class Variant:
    """One rule less.

    Attributes:
        rule: the field of `Rules` that is switched off.
        breaks: the promise whose breach is found first, on the shortest way.
        policies: of the calls of the one response, in the smallest world where it shows.
        in_ledger: the ledger itself keeps the rule, so that the trace can be tried on the real one.
    """

    rule: str
    breaks: str
    policies: tuple[str, ...] = ("ask",)
    faults: int = 1
    kinds: frozenset[str] = KINDS
    in_ledger: bool = True

    @property
    def size(self) -> Size:
        """The world in which it is searched."""
        rules = replace(Rules(), **{self.rule: False})
        return Size((self.policies,), faults=self.faults, kinds=self.kinds, rules=rules)


def _breaks(promise: object) -> str:
    return promise.__name__  # type: ignore[attr-defined]


VARIANTS = [
    Variant("fence", _breaks(promises.only_the_current_attempt_writes)),
    Variant("fenced_outcomes", _breaks(promises.only_the_current_attempt_writes)),
    Variant("doubt_at_end", _breaks(promises.doubt_begins_with_the_end)),
    Variant("late_fence", _breaks(promises.only_the_current_attempt_writes), ("retry",)),
    Variant("late_wakes", _breaks(promises.suspended_says_on_what)),
    Variant("suspend_looks_again", _breaks(promises.suspended_says_on_what)),
    Variant("told_stays", _breaks(promises.settled_stays_settled), ("tell",)),
    Variant("started_is_nobodys_to_resolve", _breaks(promises.what_happened_is_recorded), faults=0),
    Variant("append_once", _breaks(promises.messages_are_stored_once), ("read",)),
    Variant("settled_stays", _breaks(promises.settled_stays_settled), ("reconcile",)),
    Variant("rescue_asks_the_lease", _breaks(promises.the_healthy_keep_their_runs), faults=0),
    Variant("rescue_is_no_failure", _breaks(promises.lost_leases_are_no_failures)),
    Variant("hand_back_is_free", _breaks(promises.leaving_costs_nothing)),
    Variant("save_first", _breaks(promises.nothing_acts_unsaved), in_ledger=False, faults=0),
    Variant("intent_first", _breaks(promises.what_happened_is_recorded), in_ledger=False, faults=0),
    Variant("check_before_acting", _breaks(promises.nobody_acts_after_the_lease), in_ledger=False),
    Variant("lapse_is_for_good", _breaks(promises.nobody_acts_after_the_lease), in_ledger=False),
    Variant("late_evidence", _breaks(promises.who_knows_has_said_so), in_ledger=False),
    Variant(
        "one_transaction",
        _breaks(promises.writes_commit_with_their_result),
        ("transactional",),
        faults=0,
        in_ledger=False,
    ),
    Variant(
        "find_outcome",
        _breaks(promises.finished_stays_finished),
        ("transactional",),
        in_ledger=False,
    ),
    Variant("strays_handed_back", _breaks(promises.at_rest_it_has_ended_or_asks), in_ledger=False),
    Variant(
        "withdrawn_runs_again",
        _breaks(promises.the_model_was_told_of_each_call),
        ("approved tell",),
        in_ledger=False,
    ),
    Variant(
        "doubt_outlives_a_repeat",
        _breaks(promises.what_happened_is_recorded),
        ("retry",),
        faults=2,
        kinds=frozenset(("tool raises",)),
        in_ledger=False,
    ),
]
