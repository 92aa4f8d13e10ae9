"""Budgets and prices as they are declared: what they are, what they cannot be, and exact sums."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import ModelResponse
from pydantic_ai.usage import RequestUsage, RunUsage

from durably import Budget, ConfigError, Durably, Price
from durably.agents.usage import usage_before, usage_from, usage_to_json
from durably.budgets import NO_LIMIT, Spent, UsedUp, spent_of
from durably.intake import JobIntake
from durably.ledger.budgets import Sharing, spend, spend_together
from durably.ledger.operations import Operation, Statement, postponing
from durably.prices import nanousd, usd_shown, usd_text


@pytest.mark.parametrize("usd", [1.5, "1.50", Decimal("1.5"), " 1.5 "])
def test_dollars_may_be_written_as_one_likes(usd: Any) -> None:
    assert Budget(usd=usd) == Budget(usd=Decimal("1.5"))
    assert Budget(usd=usd).limit("usd") == 1_500_000_000


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"usd": "much"}, "usd='much': from 0 to 1,000,000,000 US dollars"),
        ({"usd": -1}, "usd=-1: from 0"),
        ({"usd": True}, "usd=True"),
        ({"usd": float("nan")}, "usd=nan"),
        ({"usd": [1]}, "usd=\\[1\\]"),
        ({"tokens": 1.5}, "tokens=1.5: a whole number from 0"),
        ({"requests": -1}, "requests=-1"),
        ({"tool_calls": True}, "tool_calls=True"),
        ({"on_limit": "stop"}, "use 'suspend' or 'discard'"),
    ],
)
def test_budget_that_cannot_be_is_one_sentence(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget(**limits)


def test_stored_budget_is_read_as_it_was() -> None:
    budget = Budget(usd="0.123456789", tokens=7, on_limit="discard")
    stored = json.loads(json.dumps(budget.to_json()))
    assert stored == {"usd": "0.123456789", "tokens": 7, "on_limit": "discard"}
    assert Budget.from_json(stored) == budget
    with pytest.raises(ConfigError, match="A budget has no 'dollars'; it has requests"):
        Budget.from_json({"dollars": 1})


def test_limits_are_laid_over_others_one_by_one() -> None:
    agents = Budget(usd=1, requests=10, on_limit="discard")
    assert agents.overlaid({"requests": 20}) == Budget(usd=1, requests=20, on_limit="discard")
    assert agents.overlaid(None) == agents
    assert NO_LIMIT.overlaid({"tokens": 1}) == Budget(tokens=1)


def test_price_counts_what_was_read_from_a_cache_apart() -> None:
    price = Price(input=2, output=10, cached_input=0.5)
    assert nanousd(price.of(1_000_000, 100_000, 400_000)) == nanousd(Decimal("2.4"))
    assert Price(input=2, output=10).of(1_000_000, 0, 400_000) == 2


@pytest.mark.parametrize("prices", [{"": Price(input=1, output=1)}, {"m": 1}, {1: None}])
def test_price_that_is_none_is_refused(prices: Any) -> None:
    with pytest.raises(ConfigError, match="dollars per million tokens"):
        Durably("sqlite:///nowhere.db", prices=prices)


@given(st.integers(0, 10**18))
def test_dollars_survive_being_written(nano: int) -> None:
    assert nanousd(Decimal(usd_text(nano))) == nano
    assert usd_shown(nano).startswith("$")


def test_dollars_are_shown_as_people_write_them() -> None:
    shown = [usd_shown(n) for n in (0, 1_500_000_000, 1_520_000_000, 5, 1_234_567_000_000_000)]
    assert shown == ["$0.00", "$1.50", "$1.52", "$0.000000005", "$1,234,567.00"]


@pytest.mark.parametrize(
    ("limit", "spent", "wanted", "still"),
    [
        (10, 10, 0, True),
        (11, 10, 0, False),
        (None, 10, 0, False),
        (10, 8, 2, False),
        (10, 9, 2, True),
    ],
)
def test_limit_is_used_up_as_long_as_it_leaves_no_room(
    limit: int | None, spent: int, wanted: int, still: bool
) -> None:
    used = UsedUp("run", "r", "tool_calls", 1, 1, wanted)
    assert used.still(limit, spent) == still
    assert UsedUp.from_json(used.to_json()) == used


def test_usage_of_another_version_counts_as_far_as_it_is_understood() -> None:
    usage = {"requests": 2, "input_tokens": 5, "output_tokens": None, "tool_calls": "x", "z": 1}
    assert spent_of(usage, 7) == Spent(2, 5, 0, 7)
    assert spent_of(usage | {"from_children": "?"}, 7, shared=True) == Spent(2, 5, 0, 7)
    children = {"from_children": {"requests": 1, "nanousd": 3}}
    assert spent_of(usage | children, 7, shared=True) == Spent(1, 5, 0, 4)


def test_job_from_another_language_may_have_a_budget() -> None:
    from durably.agents.registry import Registry
    from durably.dispatch.requests import RunRequest, read_args

    args = {"agent": "a", "key": "k", "prompt": "p", "budget": {"usd": "1.50", "requests": 3}}
    request = read_args(args)
    assert isinstance(request, RunRequest)
    asked = JobIntake(Registry()).new_run(request)
    assert asked.budget is not None
    assert Budget.from_json(json.loads(asked.budget)) == Budget(usd=1.5, requests=3)
    wrong = read_args(args | {"budget": {"dollars": 1}})
    assert isinstance(wrong, RunRequest)
    with pytest.raises(ConfigError, match="A budget has no 'dollars'"):
        JobIntake(Registry()).new_run(wrong)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_what_a_transaction_spends_is_added_in_one_order_whatever_it_did_first(
    order: tuple[int, ...],
) -> None:
    """Two transactions that took budgets in different orders would wait for each other."""
    sharing = [Sharing("z", ("b",)), Sharing(None, ("c", "a")), Sharing("z", ("a",))]
    before: dict[str, Any] = {"usage": None, "cost_nanousd": 0}
    postponed: list[Statement] = []
    for number in order:
        usage = json.dumps({"requests": 10**number})
        assert not statements(postponing(spend(sharing[number], before, usage, 5), postponed))
    made = [dict(statement.params) for statement in statements(spend_together(postponed))]
    assert [(m["scope"], m["name"], m["requests"], m["nanousd"]) for m in made] == [
        ("tag", "a", 110, 10),
        ("tag", "b", 1, 5),
        ("tag", "c", 10, 5),
        ("thread", "z", 101, 10),
    ]


def statements(operation: Operation[None]) -> list[Statement]:
    """What an operation asks a database for, which has nothing to answer."""
    asked: list[Statement] = []
    try:
        statement = next(operation)
        while True:
            asked.append(statement)
            statement = operation.send(())
    except StopIteration:
        return asked


def test_replayed_response_is_taken_back_whole() -> None:
    """Also what newer versions of pydantic-ai say that it cost: it is counted again."""
    responses = [
        ModelResponse(parts=[], usage=RequestUsage(input_tokens=n, output_tokens=1))
        for n in (10, 20)
    ]
    total, first = RunUsage(requests=2), RunUsage(requests=1)
    for number, response in enumerate(responses):
        if hasattr(response.usage, "cost"):
            response.usage.cost = Decimal(number + 1)
        total.incr(response.usage)
        if number == 0:
            first.incr(response.usage)
    assert usage_before(total, responses[1]) == first


def test_usage_of_no_known_cost_needs_no_converting(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = usage_from({"input_tokens": 5, "requests": 1, "details": {"cached": 2}})
    monkeypatch.setattr("durably.agents.usage._adapter", None)
    written = json.loads(usage_to_json(usage))
    assert written == {"input_tokens": 5, "requests": 1, "details": {"cached": 2}}
