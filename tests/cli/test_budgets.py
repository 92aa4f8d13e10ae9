"""``durably budgets``, ``enqueue --budget``, and what ``inbox`` and ``show`` say of budgets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.desk import Desk


def as_json(desk: Desk, *arguments: str) -> Any:
    ran = desk.run(*arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def said(desk: Desk, *arguments: str) -> str:
    ran = desk.run(*arguments)
    assert (ran.code, ran.err) == (0, ""), ran
    return ran.out


def refused(desk: Desk, *arguments: str) -> str:
    ran = desk.run(*arguments)
    assert (ran.code, ran.out) == (2, ""), ran
    (line,) = ran.err.splitlines()
    return line.removeprefix("Error: ")


def state_of(desk: Desk, key: str) -> str:
    return as_json(desk, "show", key)["run"]["state"]


@pytest.fixture
def used_up(desk: Desk) -> Desk:
    """A desk at which ``k`` has used up its own budget, and ``t`` that of the tag ``acme``."""
    said(desk, "migrate")
    said(desk, "enqueue", "cashier", "hi", "--key", "k", "--budget", "requests=1")
    said(desk, "budgets", "set", "requests=1", "tool-calls=5", "--tag", "acme")
    said(desk, "enqueue", "cashier", "hi", "--key", "t", "--tag", "acme")
    desk.drain()
    return desk


def test_what_has_used_up_a_budget_is_in_the_inbox(used_up: Desk) -> None:
    lines = said(used_up, "inbox").splitlines()
    rows = {line.split()[0]: line for line in lines[1:3]}
    assert rows["k"].split()[1:4] == ["-", "budget", "-"]
    assert rows["k"].endswith("1 of 1 requests")
    assert rows["t"].endswith("1 of 1 requests of tag acme")
    assert "durably budgets raise RUN LIMITS" in lines[-1]
    (item,) = as_json(used_up, "inbox", "--tag", "acme", "--kind", "budget")
    assert item["waiting"] == {
        "kind": "budget",
        "scope": "tag",
        "name": "acme",
        "what": "requests",
        "limit": 1,
        "spent": 1,
    }
    assert (item["run_key"], item["kind"]) == ("t", "budget")
    assert item["since"]
    assert said(used_up, "inbox", "--kind", "approval") == "Nothing waits for a decision.\n"


def test_show_says_what_is_spent_and_how_to_give_more(used_up: Desk) -> None:
    shown = said(used_up, "show", "k")
    assert "1 of 1 requests; then it waits" in shown
    assert "Run 'k' waits because its budget is used up, 1 of 1 requests" in shown
    assert "durably budgets raise k requests=..." in shown
    shown = said(used_up, "show", "t")
    assert "the budget of tag 'acme' is used up" in shown
    assert "durably budgets set --tag acme requests=..." in shown
    assert "then it waits" not in shown, "it has none of its own"


def test_raised_budget_lets_the_run_go_on(used_up: Desk) -> None:
    arguments = ("budgets", "raise", "k", "requests=5", "--by", "ann", "--note", "fine")
    assert said(used_up, *arguments) == "The budget of run 'k' is set; it is available now.\n"
    used_up.drain()
    assert state_of(used_up, "k") == "completed"
    (event,) = [e for e in as_json(used_up, "show", "k")["events"] if e["kind"] == "budget_raised"]
    assert event["data"] == {"limits": {"requests": 5}, "by": "ann", "note": "fine"}


def test_raised_shared_budget_lets_its_runs_go_on(used_up: Desk) -> None:
    (listed,) = as_json(used_up, "budgets")
    assert (listed["scope"], listed["name"]) == ("tag", "acme")
    assert listed["spent"]["requests"] == 1
    row = said(used_up, "budgets", "list").splitlines()[1].split()
    assert row[:5] == ["tag", "acme", "1", "of", "1"]
    told = said(
        used_up, "budgets", "set", "requests=2,usd=1.50", "on_limit=discard", "--tag", "acme"
    )
    assert told == (
        "The budget of tag 'acme' is set; spent of it: 1 of 2 requests, $0.00 of $1.50.\n"
    )
    assert state_of(used_up, "t") == "available"


def test_removed_shared_budget_lets_its_runs_go_on(used_up: Desk) -> None:
    told = said(used_up, "budgets", "remove", "--tag", "acme")
    assert told == "The budget of tag 'acme' is removed.\n"
    used_up.drain()
    assert state_of(used_up, "t") == "completed"
    assert said(used_up, "budgets") == "No runs share a budget.\n"


def test_budget_in_dollars_needs_a_price(desk: Desk) -> None:
    said(desk, "enqueue", "cashier", "hi", "--key", "k", "--budget", "usd=1.50")
    desk.drain()
    run = as_json(desk, "show", "k")["run"]
    assert run["state"] == "discarded"
    assert "Durably(prices={'function:scripted': " in run["error"]
    assert run["budget"] == {"usd": "1.5", "on_limit": "suspend"}


REFUSED: list[tuple[tuple[str, ...], str]] = [
    (
        ("enqueue", "echo", "x", "--budget", "dollars=1"),
        "--budget 'dollars=1': write requests=",
    ),
    (("enqueue", "echo", "x", "--budget", "tokens=many"), "tokens is a whole number from 0."),
    (("enqueue", "echo", "x", "--budget", "usd=much"), "usd='much': from 0 to"),
    (("enqueue", "echo", "x", "--budget", "on_limit=stop"), "use 'suspend' or 'discard'."),
    (("budgets", "set", "usd=1"), "thread=... or tag=..., one of them."),
    (("budgets", "set", "usd=1", "--tag", "a", "--thread", "b"), "one of them."),
    (("budgets", "set", "on_limit=discard", "--tag", "a"), "This budget limits nothing"),
    (("budgets", "remove", "--tag", "a"), "There is no budget of tag 'a'."),
    (("budgets", "raise", "k", "requests=1"), "Run 'k' has spent 1 of 1 requests"),
    (("budgets", "raise", "k", "on_limit=discard"), "declared when the run is enqueued."),
    (("budgets", "raise", "k", ","), "raise_budget() takes requests="),
    (("budgets", "raise", "nobody", "usd=1"), "No run has the key 'nobody'."),
    (("budgets", "--json", "set", "usd=1", "--tag", "a"), "Write the options behind"),
]


@pytest.mark.usefixtures("on_sqlite")
def test_what_cannot_be_is_one_sentence(used_up: Desk) -> None:
    for arguments, sentence in REFUSED:
        assert sentence in refused(used_up, *arguments)
    assert len(as_json(used_up, "inbox")) == 2, "all wait as before"
