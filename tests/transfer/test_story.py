"""A whole move as an operator does it: worker processes, the command, worker processes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.desk import APPS, DEADLINE_SECONDS, Desk, wait_until

LEASE = "2"


@pytest.fixture
def office(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    for name in list(os.environ):
        if name.startswith("DURABLY_"):
            monkeypatch.delenv(name)
    desk = Desk(tmp_path, capsys)
    monkeypatch.setenv("DESK", str(tmp_path))
    monkeypatch.setenv("DURABLY_URL", desk.url)
    monkeypatch.chdir(APPS)
    monkeypatch.syspath_prepend(str(APPS))
    yield desk
    desk.close()


def worker(office: Desk, name: str) -> Any:
    return office.start("worker", "--app", "office:make", "--lease", LEASE, "--name", name)


def enqueue(office: Desk, prompt: str, *options: str) -> None:
    name = prompt.split()[0]
    ran = office.run("enqueue", "clerk", prompt, "--key", name, *options)
    assert ran.code == 0, ran.err


def states(office: Desk) -> dict[str, str]:
    return {run["key"]: run["state"] for run in json.loads(office.run("runs", "--json").out)}


def transferred(office: Desk, target: str) -> str:
    """Move the ledger; as long as a dead worker counts as alive, that is refused."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (ran := office.run("transfer", office.url, target)).code:
        assert "alive on" in ran.err, ran.err
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return ran.out


def test_runs_of_every_kind_go_on_under_workers_of_the_new_ledger(
    office: Desk, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # --- a life on SQLite, up to a worker that dies in the middle of an effect
    enqueue(office, "completed act act")
    enqueue(office, "doubtful act break_after act")
    enqueue(office, "retryable act")
    enqueue(office, "asking act act_if_allowed")
    enqueue(office, "allowed act act_if_allowed")
    enqueue(office, "later act", "--delay", "7d")
    first = worker(office, "first")
    wait_until(lambda: states(office).get("completed") == "completed")
    wait_until(lambda: states(office)["doubtful"] == "suspended")
    wait_until(lambda: states(office)["retryable"] == "retryable")
    for key in ("asking", "allowed"):
        wait_until(lambda key=key: states(office)[key] == "suspended")
    enqueue(office, "long act wait act")
    wait_until(lambda: "waiting" in office.notes())
    enqueue(office, "dying act die_after act")
    assert first.wait() == -signal.SIGKILL
    enqueue(office, "fresh act")
    assert office.run("approve", "allowed", "3.0", "--by", "ann").code == 0
    lived_states = states(office)
    # It waits for its next try, unless the worker died in the middle of one.
    assert lived_states.pop("retryable") in ("retryable", "executing")
    assert lived_states == {
        "completed": "completed",
        "doubtful": "suspended",
        "asking": "suspended",
        "allowed": "available",
        "later": "scheduled",
        "long": "executing",
        "dying": "executing",
        "fresh": "available",
    }
    lived = office.notes()

    # --- the move
    out = transferred(office, database_url)
    assert "Moved in" in out and "different" not in out
    refused = worker(office, "too late")
    assert refused.wait() == 2
    assert f"was moved to {database_url}" in refused.err and "use that URL" in refused.err
    assert office.run("enqueue", "clerk", "late act").code == 2
    assert office.notes() == lived

    # --- and on under Oban
    monkeypatch.setenv("DURABLY_URL", database_url)
    later = json.loads(office.run("show", "later", "--json").out)["run"]
    (office.folder / "calm").touch()
    (office.folder / "go").touch()
    second = worker(office, "second")
    for key in ("fresh", "long", "retryable", "allowed"):
        wait_until(lambda key=key: states(office)[key] == "completed")
    wait_until(lambda: states(office)["dying"] == "suspended")
    inbox = json.loads(office.run("inbox", "--json").out)
    assert {(item["run_key"], item["tool_name"]) for item in inbox} == {
        ("doubtful", "break_after"),
        ("dying", "die_after"),
        ("asking", "act_if_allowed"),
    }
    assert office.run("approve", "asking", "3.0", "--by", "ben").code == 0
    assert office.run("resolve", "doubtful", "3.0", "--failed", "The bank said no.").code == 0
    assert office.run("resolve", "dying", "3.0", "--done", '"it went through"').code == 0
    for key in ("doubtful", "dying", "asking"):
        wait_until(lambda key=key: states(office)[key] == "completed")
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert states(office)["later"] == "scheduled"
    assert json.loads(office.run("show", "later", "--json").out)["run"] == later
    assert office.run("doctor").code == 0

    # --- every response was asked for once, every effect happened once
    notes = Counter(note for note in office.notes() if note != "waiting")
    assert set(notes.values()) == {1}, notes
    assert len([note for note in notes if note.startswith("dying: request")]) == 4
    assert set(notes) == {
        *(f"completed: request {n}" for n in range(3)),
        *("completed:1.0: act", "completed:3.0: act"),
        *(f"doubtful: request {n}" for n in range(4)),
        *("doubtful:1.0: act", "doubtful:3.0: break_after", "doubtful:5.0: act"),
        *(f"retryable: request {n}" for n in range(2)),
        "retryable:1.0: act",
        *(f"asking: request {n}" for n in range(3)),
        *("asking:1.0: act", "asking:3.0: act_if_allowed"),
        *(f"allowed: request {n}" for n in range(3)),
        *("allowed:1.0: act", "allowed:3.0: act_if_allowed"),
        *(f"long: request {n}" for n in range(4)),
        *("long:1.0: act", "long:5.0: act"),
        *(f"dying: request {n}" for n in range(4)),
        *("dying:1.0: act", "dying:3.0: die_after", "dying:5.0: act"),
        *(f"fresh: request {n}" for n in range(2)),
        "fresh:1.0: act",
    }
    shown = json.loads(office.run("show", "long", "--json").out)
    attempts = [(a["worker_id"].split(":")[0], a["outcome"]) for a in shown["attempts"]]
    assert attempts == [("first", "lost"), ("second", "completed")]


def test_worker_that_was_frozen_when_its_ledger_was_moved_does_nothing_and_leaves(
    office: Desk, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(office, "long act wait act")
    frozen = worker(office, "frozen")
    wait_until(lambda: "waiting" in office.notes())
    frozen.signal(signal.SIGSTOP)
    transferred(office, database_url)
    (office.folder / "go").touch()
    frozen.signal(signal.SIGCONT)
    assert frozen.wait() == 1
    assert f"was moved to {database_url}" in frozen.err
    assert office.notes() == ["long: request 0", "long:1.0: act", "long: request 1", "waiting"]

    monkeypatch.setenv("DURABLY_URL", database_url)
    second = worker(office, "second")
    assert office.run("watch", "long").code == 0
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert Counter(office.notes())["long:5.0: act"] == 1


def test_watcher_goes_on_after_the_event_that_it_saw_last(
    office: Desk, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(office, "doubtful break_after")
    asyncio.run(_drain(office.url))
    seen = [json.loads(line) for line in _watch_until_it_waits(office)]
    transferred(office, database_url)
    monkeypatch.setenv("DURABLY_URL", database_url)
    assert office.run("cancel", "doubtful").code == 0
    rest = office.run("watch", "doubtful", "--json", "--after", str(seen[-1]["id"])).out
    kinds = [json.loads(line)["kind"] for line in rest.splitlines()]
    assert kinds == ["cancelled"]


async def _drain(url: str) -> None:
    from apps.office import make

    async with make() as app:
        await app.drain()


def _watch_until_it_waits(office: Desk) -> list[str]:
    watching = office.start("watch", "doubtful", "--json")
    wait_until(lambda: '"suspended"' in watching.err)
    watching.signal(signal.SIGINT)
    watching.wait()
    return [line for line in watching.err.splitlines() if line.startswith("{")]


# --- the command


def test_command_says_what_it_does_and_what_came_of_it(office: Desk, database_url: str) -> None:
    enqueue(office, "fresh act")
    looked = office.run("transfer", office.url, database_url, "--dry-run")
    assert (looked.code, looked.err) == (0, "")
    assert looked.out.splitlines() == [
        f"{office.url} holds 1 run: 1 available.",
        "1 inputs, 0 messages, 0 effects, 0 decisions, 0 signals, 0 notices, 0 attempts, 1 events",
        f"{database_url} has no tables yet; they would be made.",
        "Nothing is in the way.",
    ]
    moved = office.run("transfer", office.url, database_url)
    assert moved.code == 0
    said = moved.err.splitlines()
    assert said[0] == f"{database_url}: made the tables, as `durably migrate` does."
    assert said[1] == f"Moving 1 run from {office.url} to {database_url}."
    assert re.fullmatch(r"Copying: 3 rows in [\d.]+ s, [\d,]+ rows/s\.", said[2])
    assert re.fullmatch(r"Verifying: \d+ rows in [\d.]+ s, [\d,]+ rows/s\.", said[3])
    table = moved.out.splitlines()
    header = "TABLE ROWS HERE ROWS THERE SHA-256 HERE SHA-256 THERE"
    assert " ".join(table[0].split()) == header
    assert [line.split()[0] for line in table[1:-1]] == [
        *("runs", "inputs", "messages", "effects", "decisions", "signals", "notices"),
        *("attempts", "events", "queues", "budgets", "actions", "jobs"),
    ]
    assert all(line.endswith("same") for line in table[1:-1])
    assert "Start workers and applications with the URL" in table[-1]
    again = office.run("transfer", office.url, database_url)
    assert (again.code, again.err) == (0, "")
    assert "was moved to" in again.out and "nothing was left to do" in again.out


def test_command_tells_programs_in_one_line(office: Desk, database_url: str) -> None:
    enqueue(office, "fresh act")
    (plan,) = office.run(
        "transfer", office.url, database_url, "--dry-run", "--json"
    ).out.splitlines()
    assert json.loads(plan)["rows"]["runs"] == 1
    (line,) = office.run("transfer", office.url, database_url, "--json").out.splitlines()
    moved = json.loads(line)
    assert moved["tables"]["runs"]["rows"] == moved["tables"]["jobs"]["rows"] == 1
    assert len(moved["tables"]["runs"]["sha256"]) == 64
    refused = office.run("transfer", office.url, database_url, "--undo", "--json")
    assert (refused.code, refused.out) == (2, "")
    assert "cannot be taken back" in refused.err


def test_command_takes_a_transfer_back(office: Desk, database_url: str) -> None:
    from durably.ledger.transfer import news
    from durably.ledger.transfer.move import move

    enqueue(office, "fresh act")
    moving = move(office.url, database_url)
    while not isinstance(next(moving), news.Copied):
        pass
    moving.close()
    assert office.run("runs").code == 2
    assert office.run("doctor").code == 1
    assert office.run("doctor", "--url", database_url).code == 1
    back = office.run("transfer", office.url, database_url, "--undo")
    assert (back.code, back.out) == (
        0,
        f"Deleted 1 run at the target. {office.url} is in use again, as it was.\n",
    )
    assert states(office) == {"fresh": "available"}
    both = office.run("transfer", office.url, database_url, "--undo", "--dry-run")
    assert (both.code, both.err) == (2, "Error: Give --dry-run or --undo, not both.\n")


def test_command_says_what_is_in_the_way_and_exits_with_1(office: Desk, migrated_url: str) -> None:
    enqueue(office, "fresh act")
    enqueue(office, "fresh act", "--url", migrated_url)
    looked = office.run("transfer", office.url, migrated_url, "--dry-run")
    assert looked.code == 1
    assert looked.out.splitlines()[-1].startswith(f"In the way: {migrated_url} holds runs already")
    assert office.run("transfer", office.url, migrated_url).code == 2
    assert states(office) == {"fresh": "available"}
