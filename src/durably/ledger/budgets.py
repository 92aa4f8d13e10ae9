"""Budgets in the ledger: set and removed, spent from by runs, raised for one, waited for.

Owns that what a run spends is counted once, and what wakes a run that waits for a budget; whether
it may go on is `durably.budgets`'s arithmetic, when that is asked the agents'.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from durably.budgets import Budget, SharedBudget, Spent, UsedUp, spent_of
from durably.errors import ConfigError, RunNotFound, TransitionRefused
from durably.ledger.fence import record_event
from durably.ledger.operations import (
    Operation,
    Row,
    Statement,
    execute,
    execute_last,
    fetch,
    fetch_one,
)
from durably.ledger.rows import run_from, shared_budget_from, usage_from
from durably.ledger.waking import dispatch
from durably.lifecycle import RunState, allowed
from durably.records import RunRecord

WAKE_LIMIT = 500
"""How many runs one look finds that wait for budgets."""


class Sharing(NamedTuple):
    """The shared budgets that a run spends from: of its thread, and of these of its tags."""

    thread: str | None
    tags: tuple[str, ...]

    @classmethod
    def of(cls, budgets: Sequence[SharedBudget]) -> Sharing | None:
        """The names of these budgets; None if there are none."""
        if not budgets:
            return None
        thread = next((b.name for b in budgets if b.scope == "thread"), None)
        return cls(thread, tuple(b.name for b in budgets if b.scope == "tag"))

    def names(self) -> list[tuple[str, str]]:
        """Scope and name of each, in the order in which they are locked."""
        threads = [] if self.thread is None else [("thread", self.thread)]
        return sorted([*threads, *(("tag", tag) for tag in self.tags)])


# --- shared budgets


def set_shared(scope: str, name: str, limits: Budget) -> Operation[SharedBudget]:
    """Set the limits of a shared budget; what was spent of it stays."""
    row = yield from fetch_one(
        "set_budget", scope=scope, name=name, limits=json.dumps(limits.to_json())
    )
    assert row is not None, "set, or set again"
    return shared_budget_from(row)


def remove_shared(scope: str, name: str) -> Operation[None]:
    """Limit these runs together no more, and forget what they spent.

    Raises:
        ConfigError: there is no such budget.
    """
    if not (yield from execute("remove_budget", scope=scope, name=name)):
        raise ConfigError(f"There is no budget of {scope} {name!r}.")


def list_shared() -> Operation[list[SharedBudget]]:
    """Every shared budget, with what was spent of it."""
    return [shared_budget_from(row) for row in (yield from fetch("list_budgets"))]


def list_shared_of(thread: str | None, tags: Sequence[str]) -> Operation[list[SharedBudget]]:
    """The shared budgets of a run of this thread with these tags; a read."""
    rows = yield from fetch("budgets_of", thread=thread, tags=json.dumps(list(tags)))
    return [shared_budget_from(row) for row in rows]


def spend(sharing: Sharing, before: Row, usage: str | None, cost: int | None) -> Operation[None]:
    """Add to shared budgets what a run has spent since its row was written last.

    The difference to the row, which is held: a second time there is none.

    Args:
        before: the run's usage and cost as they were.
        usage, cost: as they are written now; None: as they were.
    """
    was: Mapping[str, Any] = usage_from(before)
    now: Mapping[str, Any] = was if usage is None else json.loads(usage)
    paid: int = before["cost_nanousd"]
    spent = spent_of(now, paid if cost is None else cost, shared=True)
    news = spent.since(spent_of(was, paid, shared=True))
    if news != Spent():
        for scope, name in sharing.names():
            yield from execute_last("add_spending", scope=scope, name=name, **asdict(news))


def spend_together(postponed: Sequence[Statement]) -> Operation[None]:
    """What several operations of one transaction spend: one write for each budget, in order.

    In the order of each operation's own, two transactions would wait for each other.
    """
    sums: defaultdict[tuple[str, str], Spent] = defaultdict(Spent)
    for statement in postponed:
        news: dict[str, Any] = dict(statement.params)
        budget = news.pop("scope"), news.pop("name")
        sums[budget] += Spent(**news)
    for scope, name in sorted(sums):
        spent = asdict(sums[scope, name])
        yield from execute("add_spending", scope=scope, name=name, **spent)


# --- a run's own


def raise_own(key: str, limits: Mapping[str, Any], by: str, note: str) -> Operation[RunRecord]:
    """Set limits of a run's own budget; wakes it if it waits for one of them.

    Args:
        limits: those to set, as stored; the others stay.

    Raises:
        RunNotFound: no run has the key.
        TransitionRefused: it is final, or waits for a limit that would still be used up.
    """
    row = yield from fetch_one("get_run_to_decide", key=key)
    if row is None:
        raise RunNotFound(key)
    run = run_from(row)
    if run.state.final:
        hint = "retry it first" if allowed("revive", run.state) else "it spends nothing any more"
        raise TransitionRefused(f"Run {key!r} is {run.state}; {hint}.")
    before, after = run.budget or {}, (run.budget or {}) | dict(limits)
    waits = _waits_for(run)
    if waits is not None and waits.scope == "run" and waits.what in limits:
        limit = Budget.from_json(after).limit(waits.what)
        if waits.still(limit, waits.spent):
            raise TransitionRefused(
                f"Run {key!r} has spent {waits.describe()}: it goes on with a higher limit only."
            )
    row = yield from fetch_one("set_run_budget", run_id=run.id, budget=json.dumps(after))
    assert row is not None, "it is held"
    yield from record_event(run.claim, "budget_raised", limits=dict(limits), by=by, note=note)
    yield from execute(
        "insert_decision",
        run_id=run.id,
        response=None,
        call=None,
        step="",
        decision="raised",
        by=by,
        note=note,
        args_before=json.dumps(before),
        args_after=json.dumps(after),
    )
    return (yield from wake_if_funded(run_from(row), by=by)) or run_from(row)


# --- runs that wait for a budget


def list_waits(after: int, limit: int = WAKE_LIMIT) -> Operation[tuple[list[int], int]]:
    """Runs that wait for a budget which has room by now; a read.

    Returns:
        Their ids, of those of one page; and where the next page begins: 0 if this was the last.
    """
    rows = yield from fetch("list_budget_waits", after=after, limit=limit)
    known: dict[tuple[str, str], SharedBudget | None] = {}
    found: list[int] = []
    for row in rows:
        run = run_from(row)
        waits = _waits_for(run)
        if waits is None or not (yield from _still_used_up(waits, run.budget, known)):
            found.append(run.id)
    return found, rows[-1]["id"] if len(rows) == limit else 0


def list_waits_for(scope: str, name: str, limit: int = WAKE_LIMIT) -> Operation[list[int]]:
    """Runs that wait for this shared budget; a read."""
    rows = yield from fetch("list_waits_for_budget", scope=scope, name=name, limit=limit)
    return [row["id"] for row in rows]


def wake_funded(run_id: int) -> Operation[RunRecord | None]:
    """Wake a run if the budget that it waits for has room by now; None if not."""
    yield from fetch_one("lock_run", run_id=run_id)
    row = yield from fetch_one("get_run_by_id", run_id=run_id)
    return None if row is None else (yield from wake_if_funded(run_from(row)))


def wake_if_funded(run: RunRecord, by: str = "budget") -> Operation[RunRecord | None]:
    """`wake_funded`, for a run that is held."""
    if not _waits(run):
        return None
    waits = _waits_for(run)
    if waits is not None and (yield from _still_used_up(waits, run.budget, {})):
        return None
    row = yield from fetch_one("wake_funded_run", run_id=run.id)
    if row is None:
        return None
    woken = run_from(row)
    yield from record_event(woken.claim, "woken", by=by)
    yield from dispatch(woken)
    return woken


def _waits(run: RunRecord) -> bool:
    return run.state is RunState.SUSPENDED and (run.waiting_on or {}).get("kind") == "budget"


def _waits_for(run: RunRecord) -> UsedUp | None:
    """What a run waits for; None if for no budget, or if it cannot be read for which: an attempt
    finds out."""
    return UsedUp.read(run.waiting_on or {}) if _waits(run) else None


def _still_used_up(
    waits: UsedUp,
    own: Mapping[str, Any] | None,
    known: dict[tuple[str, str], SharedBudget | None],
) -> Operation[bool]:
    """Whether a run would wait for the same budget again.

    Compared as the attempt did that found it used up: what it saw as spent of its own budget may
    be more than its row says, and a run that is woken too early would wait again, and be woken.
    """
    if waits.scope == "run":
        changed = Budget.from_json(own or {}).limit(waits.what)
        return waits.still(waits.limit if changed is None else changed, waits.spent)
    name = (waits.scope, waits.name)
    if name not in known:
        row = yield from fetch_one("get_budget", scope=waits.scope, name=waits.name)
        known[name] = None if row is None else shared_budget_from(row)
    budget = known[name]
    if budget is None:
        return False
    return waits.still(budget.limits.limit(waits.what), budget.spent.of(waits.what))
