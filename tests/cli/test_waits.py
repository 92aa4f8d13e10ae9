"""Runs that wait for a signal or for another run, as the command line shows and moves them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.desk import Desk


def as_json(desk: Desk, *arguments: str) -> Any:
    ran = desk.run(*arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.fixture
def planning(desk: Desk) -> Desk:
    desk.enqueue("planner", "p")
    desk.drain()
    return desk


def test_signal_lets_a_waiting_run_go_on(planning: Desk) -> None:
    sent = planning.run("signal", "p", "date", "--payload", '"monday"', "--id", "m1", "--by", "ann")
    assert sent.out == "Signal 'date' is sent to run 'p'; it is available now.\n"
    again = planning.run("signal", "p", "date", "--payload", '"tuesday"', "--id", "m1")
    assert again.code == 0
    planning.drain()
    run = as_json(planning, "show", "p")["run"]
    assert (run["state"], run["output"]) == ("completed", "plan: planned for monday")
    late = planning.run("signal", "p", "date")
    assert (late.code, late.out) == (2, "")
    assert "waits for no signal any more" in late.err


def test_show_says_what_a_run_waits_for_and_what_it_did(planning: Desk) -> None:
    shown = planning.run("show", "p").out
    assert "Run 'p' waits for the signal 'date'." in shown
    assert "durably signal p date --payload JSON" in shown
    lines = [line for line in shown.splitlines() if line.strip().startswith("step")]
    assert lines[0].split()[1:3] == ["look", '{"args":["look"]}'] and "[done]" in lines[0]
    assert lines[1].split()[1:3] == ["signal", "date"] and "waits for a signal" in lines[1]
    effects = {e["call_id"]: e["state"] for e in as_json(planning, "show", "p")["effects"]}
    assert effects == {"1.0/look": "done", "1.0/signal date": "awaiting"}


def test_payload_of_a_signal_must_be_json(planning: Desk) -> None:
    refused = planning.run("signal", "p", "date", "--payload", "monday")
    assert refused.code == 2
    assert "--payload is not JSON" in refused.err


def test_signal_needs_a_run_that_is_there(desk: Desk) -> None:
    desk.enqueue("echo", "e")
    assert "No run has the key 'nobody'" in desk.run("signal", "nobody", "date").err


def test_inbox_says_whose_child_asks(desk: Desk) -> None:
    desk.enqueue("boss", "b")
    desk.drain()
    (line,) = [line for line in desk.run("inbox").out.splitlines() if "pay_back" in line]
    assert line.startswith("b › errand")
    (item,) = as_json(desk, "inbox")
    assert (item["run_key"], item["path"]) == ("errand", ["b", "errand"])
    shown = desk.run("show", "b").out
    assert "Run 'b' waits for run 'errand'." in shown
    assert "children errand" in shown
    assert desk.run("approve", "errand", "1.0").code == 0
    desk.drain()
    assert as_json(desk, "show", "b")["run"]["state"] == "completed"
