"""What is spent counts once: in the run's row, and in the budgets that it shares."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from durably.budgets import Budget, Spent
from durably.errors import ConfigError, LeaseLost, RunNotFound, TransitionRefused
from durably.ledger import attempts, budgets, reads, steps
from durably.ledger.budgets import Sharing
from durably.ledger.written import Step
from durably.lifecycle import RunState
from durably.records import RunRecord
from support.ledgers import Ledger, message, stale

BOTH = Sharing("chat", ("a", "b"))


def step(
    number: int, *, requests: int, sharing: Sharing | None = BOTH, children: Spent | None = None
) -> Step:
    """What an attempt saves that has made so many requests, of 10 tokens and 5 billionths each."""
    usage: dict[str, Any] = {"requests": requests, "input_tokens": 7 * requests}
    usage |= {"output_tokens": 3 * requests, "tool_calls": 2 * requests}
    if children is not None:
        usage["from_children"] = children.to_json()
    return Step(
        usage=json.dumps(usage),
        cost_nanousd=5 * requests,
        messages=(message(number),),
        sharing=sharing,
    )


def spent_by(requests: int) -> Spent:
    return Spent(requests, 10 * requests, 2 * requests, 5 * requests)


@pytest.fixture
async def shared(ledger: Ledger) -> Ledger:
    """A ledger with the budgets of a thread and of two tags, and one that nobody spends from."""
    for scope, name in (("thread", "chat"), ("tag", "a"), ("tag", "b"), ("tag", "chat")):
        await ledger.write(budgets.set_shared, scope, name, Budget(requests=100))
    return ledger


async def spent(ledger: Ledger) -> dict[tuple[str, str], Spent]:
    found = await ledger.read(budgets.list_shared)
    return {(budget.scope, budget.name): budget.spent for budget in found}


def everywhere(expected: Spent) -> dict[tuple[str, str], Spent]:
    counted = {("thread", "chat"): expected, ("tag", "a"): expected, ("tag", "b"): expected}
    return counted | {("tag", "chat"): Spent()}


# --- counting


async def test_step_adds_what_was_spent_since_the_last_one(shared: Ledger) -> None:
    run = await shared.executing()
    await shared.write(steps.record_step, run.claim, step(0, requests=1))
    assert await spent(shared) == everywhere(spent_by(1))
    await shared.write(steps.record_step, run.claim, step(1, requests=3))
    assert await spent(shared) == everywhere(spent_by(3))
    assert (await shared.get(run)).cost_nanousd == 15


async def test_step_that_is_written_twice_counts_once(shared: Ledger) -> None:
    run = await shared.executing()
    for _ in range(3):
        await shared.write(steps.record_step, run.claim, step(0, requests=1))
    assert await spent(shared) == everywhere(spent_by(1))
    assert (await shared.get(run)).cost_nanousd == 5


async def test_stale_attempt_spends_nothing(shared: Ledger) -> None:
    run = await shared.executing()
    with pytest.raises(LeaseLost):
        await shared.write(steps.record_step, stale(run), step(0, requests=1))
    assert await spent(shared) == everywhere(Spent())


async def test_completion_counts_what_came_after_the_last_step(shared: Ledger) -> None:
    run = await shared.executing()
    await shared.write(steps.record_step, run.claim, step(0, requests=1))
    await shared.write(attempts.complete, run.claim, '"x"', step(1, requests=2))
    with pytest.raises(LeaseLost):  # As when nobody heard that it was committed.
        await shared.write(attempts.complete, run.claim, '"x"', step(1, requests=2))
    assert await spent(shared) == everywhere(spent_by(2))


async def test_next_attempt_counts_from_where_the_last_one_saved(shared: Ledger) -> None:
    run = await shared.executing()
    await shared.write(attempts.hand_back, run.claim, step(0, requests=2))
    again = await shared.claim(await shared.get(run))
    await shared.write(steps.record_step, again.claim, step(1, requests=3))
    assert await spent(shared) == everywhere(spent_by(3))


async def test_step_without_usage_counts_nothing(shared: Ledger) -> None:
    run = await shared.executing()
    await shared.write(steps.record_step, run.claim, step(0, requests=2))
    await shared.write(steps.record_step, run.claim, Step(messages=(message(1),), sharing=BOTH))
    assert await spent(shared) == everywhere(spent_by(2))


async def test_what_child_runs_have_spent_counts_for_them_alone(shared: Ledger) -> None:
    run = await shared.executing()
    # Of three requests a child run made two, and has counted them for itself.
    first = step(0, requests=3, children=spent_by(2))
    for _ in range(2):
        await shared.write(steps.record_step, run.claim, first)
    assert await spent(shared) == everywhere(spent_by(1))
    later = step(1, requests=6, children=spent_by(4))
    await shared.write(steps.record_step, run.claim, later)
    assert await spent(shared) == everywhere(spent_by(2))
    assert (await shared.get(run)).cost_nanousd == 30, "its own budget counts them"


async def test_runs_that_write_at_once_lose_nothing_of_the_sum(shared: Ledger) -> None:
    sharing = [BOTH, Sharing(None, ("b", "a")), Sharing("chat", ()), Sharing(None, ("a",))]
    found = [await shared.executing() for _ in range(12)]

    async def spend(number: int, run: RunRecord) -> None:
        for requests in range(1, 6):
            mine = step(requests, requests=requests, sharing=sharing[number % 4])
            await shared.write(steps.record_step, run.claim, mine)

    await asyncio.gather(*(spend(number, run) for number, run in enumerate(found)))
    assert await spent(shared) == {
        ("thread", "chat"): spent_by(6 * 5),
        ("tag", "a"): spent_by(9 * 5),
        ("tag", "b"): spent_by(6 * 5),
        ("tag", "chat"): Spent(),
    }


async def test_setting_a_budget_again_keeps_what_was_spent(shared: Ledger) -> None:
    run = await shared.executing()
    await shared.write(steps.record_step, run.claim, step(0, requests=2))
    record = await shared.write(budgets.set_shared, "tag", "a", Budget(usd="0.5"))
    assert (record.limits, record.spent) == (Budget(usd=0.5), spent_by(2))
    await shared.write(budgets.remove_shared, "tag", "a")
    record = await shared.write(budgets.set_shared, "tag", "a", Budget(tokens=1))
    assert record.spent == Spent()
    with pytest.raises(ConfigError, match="There is no budget of tag 'z'"):
        await shared.write(budgets.remove_shared, "tag", "z")


async def test_run_finds_the_budgets_that_it_shares(shared: Ledger) -> None:
    async def names(thread: str | None, *tags: str) -> list[str]:
        found = await shared.read(budgets.list_shared_of, thread, tags)
        return [f"{budget.scope} {budget.name}" for budget in found]

    assert await names("chat", "b", "a", "a", "x") == ["tag a", "tag b", "thread chat"]
    assert await names(None, "chat") == ["tag chat"]
    assert await names("a") == []
    assert await names(None) == []
    assert await names("'", '"', "\\", "é%") == []


# --- waiting


def on_tag(limit: int = 1, spent: int = 1) -> dict[str, object]:
    return {"scope": "tag", "name": "a", "what": "requests", "limit": limit, "spent": spent}


def on_own(limit: int = 1, spent: int = 1) -> dict[str, object]:
    return {"scope": "run", "name": "r1", "what": "requests", "limit": limit, "spent": spent}


async def waiting(ledger: Ledger, on: dict[str, object], **options: Any) -> RunRecord:
    run = await ledger.executing(**options)
    return await ledger.write(attempts.suspend, run.claim, "budget", on, Step())


async def test_run_that_waits_for_a_budget_is_woken_once_it_has_room(ledger: Ledger) -> None:
    await ledger.write(budgets.set_shared, "tag", "a", Budget(requests=0))
    run = await waiting(ledger, on_tag(0, 0))
    assert run.state is RunState.SUSPENDED
    assert await ledger.read(budgets.list_waits, 0) == ([], 0)
    assert await ledger.write(budgets.wake_funded, run.id) is None
    await ledger.write(budgets.set_shared, "tag", "a", Budget(requests=1))
    assert await ledger.read(budgets.list_waits, 0) == ([run.id], 0)
    assert await ledger.read(budgets.list_waits_for, "tag", "a") == [run.id]
    assert await ledger.read(budgets.list_waits_for, "thread", "a") == []
    woken = await ledger.write(budgets.wake_funded, run.id)
    assert woken is not None
    assert (woken.state, woken.waiting_on) == (RunState.AVAILABLE, None)
    assert await ledger.write(budgets.wake_funded, run.id) is None, "once"
    assert (await ledger.event_kinds(run)).count("woken") == 1


async def test_run_does_not_wait_for_a_budget_that_was_raised_meanwhile(ledger: Ledger) -> None:
    await ledger.write(budgets.set_shared, "tag", "a", Budget(requests=5))
    assert (await waiting(ledger, on_tag())).state is RunState.AVAILABLE
    await ledger.write(budgets.remove_shared, "tag", "a")
    assert (await waiting(ledger, on_tag())).state is RunState.AVAILABLE


async def test_run_does_not_wait_for_its_own_that_was_raised_meanwhile(ledger: Ledger) -> None:
    run = await ledger.executing()
    await ledger.write(budgets.raise_own, run.key, {"requests": 2}, "ann", "")
    ended = await ledger.write(attempts.suspend, run.claim, "budget", on_own(), Step())
    assert ended.state is RunState.AVAILABLE
    again = await ledger.claim(ended)
    ended = await ledger.write(attempts.suspend, again.claim, "budget", on_own(2, 2), Step())
    assert ended.state is RunState.SUSPENDED, "used up again"


async def test_run_waits_on_if_another_limit_of_it_is_raised(ledger: Ledger) -> None:
    run = await waiting(ledger, on_own())
    raised = await ledger.write(budgets.raise_own, run.key, {"usd": "2"}, "ann", "")
    assert (raised.state, raised.budget) == (RunState.SUSPENDED, {"usd": "2"})
    with pytest.raises(TransitionRefused, match="has spent 1 of 1 requests"):
        await ledger.write(budgets.raise_own, run.key, {"requests": 1}, "ann", "")
    raised = await ledger.write(budgets.raise_own, run.key, {"requests": 2}, "ben", "why")
    assert (raised.state, raised.budget) == (RunState.AVAILABLE, {"usd": "2", "requests": 2})
    decisions = await ledger.read(reads.list_decisions, run.id)
    assert [(d.decision, d.by, d.note, d.args_before, d.args_after) for d in decisions] == [
        ("raised", "ann", "", "{}", '{"usd": "2"}'),
        ("raised", "ben", "why", '{"usd": "2"}', '{"usd": "2", "requests": 2}'),
    ]
    with pytest.raises(RunNotFound):
        await ledger.write(budgets.raise_own, "nobody", {"requests": 2}, "ben", "")


async def test_looks_at_runs_that_wait_go_page_by_page(ledger: Ledger) -> None:
    await ledger.write(budgets.set_shared, "tag", "a", Budget(requests=0))
    ids = [(await waiting(ledger, on_tag(0, 0))).id for _ in range(3)]
    await ledger.write(budgets.set_shared, "tag", "a", Budget(requests=1))
    assert await ledger.read(budgets.list_waits, 0, 2) == (ids[:2], ids[1])
    assert await ledger.read(budgets.list_waits, ids[1], 2) == (ids[2:], 0)
    assert await ledger.read(budgets.list_waits, ids[2], 2) == ([], 0)


async def test_inbox_has_what_waits_for_a_budget_among_the_rest_oldest_first(
    ledger: Ledger,
) -> None:
    await ledger.write(budgets.set_shared, "tag", "a", Budget(requests=0))
    first = await waiting(ledger, on_tag(0, 0), tags='["a"]', agent="x")
    ledger.clock.advance(5)
    asked = await ledger.in_state(RunState.SUSPENDED)
    ledger.clock.advance(5)
    last = await waiting(ledger, on_own())
    found = await ledger.read(reads.list_inbox)
    assert [item.run_key for item in found] == [first.key, asked.key, last.key]
    assert [item.kind for item in found] == ["budget", "doubt", "budget"]
    assert found[0].waiting == {"kind": "budget", **on_tag(0, 0)}
    assert [item.since for item in found] == sorted(item.since for item in found)
    only = await ledger.read(reads.list_inbox, "x", None, "a", "budget")
    assert [item.run_key for item in only] == [first.key]
    assert await ledger.read(reads.list_inbox, None, "elsewhere", None, "budget") == []
