"""``durably audit``: who did what, by whichever command."""

from __future__ import annotations

import json
from typing import Any

from support.desk import Desk


def said(desk: Desk, *arguments: str) -> str:
    ran = desk.run(*arguments)
    assert (ran.code, ran.err) == (0, ""), ran
    return ran.out


def test_every_command_that_does_something_says_who_did_it(in_doubt: Desk) -> None:
    desk = in_doubt
    said(desk, "queues", "pause", "agents", "--by", "ann")
    said(desk, "queues", "scale", "agents", "3", "--by", "ann")
    said(desk, "queues", "resume", "agents", "--by", "ann")
    said(desk, "budgets", "set", "usd=1", "--tag", "t", "--by", "ben")
    said(desk, "budgets", "remove", "--tag", "t", "--by", "ben")
    said(desk, "resolve", "k", "1.0", "--failed", "no\x1b[31m", "--by", "cy")
    said(desk, "cancel", "k")
    said(desk, "prune", "--older-than", "0s", "--state", "cancelled", "--yes", "--by", "dee")
    found: list[dict[str, Any]] = json.loads(said(desk, "audit", "--json"))
    assert [(a["action"], a["by"], a["run_key"], a["subject"]) for a in found] == [
        ("prune", "dee", None, ""),
        ("cancel", "operator", "k", ""),
        ("resolve", "cy", "k", "1.0"),
        ("remove_budget", "ben", None, "tag t"),
        ("set_budget", "ben", None, "tag t"),
        ("resume", "ann", None, "agents"),
        ("scale", "ann", None, "agents"),
        ("pause", "ann", None, "agents"),
    ]
    shown = said(desk, "audit", "--run", "k").splitlines()
    assert [line.split()[3:7] for line in shown[1:]] == [
        ["operator", "cancel", "k", "-"],
        ["cy", "resolve", "k", "1.0"],
    ]
    assert "\x1b" not in "".join(shown), "what was said cannot disturb a terminal"
    page = said(desk, "audit", "--limit", "1", "--before", str(found[0]["id"])).splitlines()
    assert page[-1] == f"Older ones: --before {found[1]['id']}"
    said(desk, "enqueue", "echo", "hi", "--key", "again")
    said(desk, "cancel", "again", "--by", "eve")
    said(desk, "prune", "--older-than", "0s", "--yes", "--by", "dee")
    (left,) = json.loads(said(desk, "audit", "--json"))
    assert (left["action"], left["by"]) == ("prune", "dee"), "it does not delete itself"
    assert said(desk, "audit", "--run", "nobody's") == "Nobody did anything.\n"
