"""Threads from the command line."""

from __future__ import annotations

import json
from typing import Any

from support.desk import Desk


def as_json(desk: Desk, *arguments: str) -> Any:
    ran = desk.run(*arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def enqueue(desk: Desk, key: str, *options: str) -> Any:
    return desk.run("enqueue", "cashier", f"hello {key}", "--key", key, "--thread", "c7", *options)


def test_thread_is_continued_listed_and_shown(desk: Desk) -> None:
    for key in ("a", "b"):
        assert enqueue(desk, key).code == 0
    desk.enqueue("cashier", "other")
    assert [run["key"] for run in as_json(desk, "runs", "--thread", "c7")] == ["b", "a"]
    shown = desk.run("show", "b").out
    assert "thread c7" in shown
    assert "Run 'b' waits for its turn in thread 'c7', after run 'a'." in shown
    run = as_json(desk, "show", "b")["run"]
    assert (run["thread"], run["waiting_on"]) == ("c7", {"kind": "thread", "after": "a"})
    assert desk.run("inbox").out == "Nothing waits for a decision.\n"
    desk.drain()
    assert {run["state"] for run in as_json(desk, "runs", "--thread", "c7")} == {"completed"}


def test_busy_thread_is_refused_interrupted_or_steered(desk: Desk) -> None:
    enqueue(desk, "a", "--delay", "1d")
    refused = enqueue(desk, "b", "--on-busy", "reject")
    assert (refused.code, refused.out) == (2, "")
    assert "Thread 'c7' is busy: its run 'a' is scheduled." in refused.err
    assert enqueue(desk, "c", "--on-busy", "steer").code == 0
    assert "to see its message" in desk.run("show", "c").out
    assert enqueue(desk, "d", "--on-busy", "interrupt").code == 0
    states = {run["key"]: run["state"] for run in as_json(desk, "runs", "--thread", "c7")}
    assert states == {"a": "cancelled", "c": "available", "d": "suspended"}
    retried = desk.run("retry", "a")
    assert retried.code == 2
    assert "Thread 'c7' has gone on: run 'c' came after 'a'." in retried.err


def test_unknown_on_busy_is_refused_in_one_sentence(desk: Desk) -> None:
    refused = enqueue(desk, "a", "--on-busy", "wait")
    assert (refused.code, refused.out) == (2, "")
    assert "use one of: queue, reject, interrupt, steer" in refused.err
