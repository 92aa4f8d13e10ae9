"""``durably queues``: what it shows, what it decides, and that worker processes follow."""

import json
import signal
from typing import Any

import pytest

from support.desk import Desk, Process, wait_until


def queue_of(desk: Desk, name: str) -> dict[str, Any]:
    ran = desk.run("queues", "list", "--json")
    assert ran.code == 0, ran
    return next(row for row in json.loads(ran.out) if row["queue"] == name)


def rows(desk: Desk, *arguments: str) -> list[list[str]]:
    return [line.split() for line in desk.run("queues", *arguments).out.splitlines()]


def state_of(desk: Desk, key: str) -> str:
    return json.loads(desk.run("show", key, "--json").out)["run"]["state"]


def told(desk: Desk, *arguments: str) -> str:
    ran = desk.run("queues", *arguments)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


# --- listing


def test_queues_are_counted_by_state(desk: Desk) -> None:
    desk.enqueue("echo", "a")
    desk.drain()
    desk.enqueue("echo", "b")
    desk.enqueue("echo", "c", queue="other")
    found = json.loads(desk.run("queues", "--json").out)
    assert {row["queue"]: row["counts"] for row in found} == {
        "agents": {"completed": 1, "available": 1},
        "other": {"available": 1},
    }
    assert rows(desk) == [
        ["QUEUE", "WORKERS", "LIMIT", "PAUSED", "AVAILABLE", "COMPLETED"],
        ["agents", "0", "-", "no", "1", "1"],
        ["other", "0", "-", "no", "1", "0"],
    ]


@pytest.mark.parametrize("command", [(), ("list",)])
def test_queues_are_listed_with_and_without_the_command(
    desk: Desk, command: tuple[str, ...]
) -> None:
    desk.run("migrate")
    assert told(desk, *command) == "No runs in any queue.\n"
    desk.enqueue("echo", "a")
    for options in ([], ["--app", "desk:make"], ["--url", desk.url]):
        assert rows(desk, *command, *options)[1][:2] == ["agents", "0"]
        assert json.loads(told(desk, *command, *options, "--json")) == [
            {
                "queue": "agents",
                "counts": {"available": 1},
                "paused": False,
                "limit": None,
                "served_by": {},
                "workers": 0,
            }
        ]


# --- deciding


def test_what_was_decided_is_said_and_shown(desk: Desk) -> None:
    desk.run("migrate")
    for command, said, shown in (
        ("pause mail", "is paused; what is being executed goes on.", ["-", "yes"]),
        (
            "scale mail 3",
            ": each worker executes 3 at once. It is paused.",
            ["3", "(scaled)", "yes"],
        ),
        ("resume mail", " goes on.", ["3", "(scaled)", "no"]),
        ("pause mail", "is paused; what is being executed goes on.", ["3", "(scaled)", "yes"]),
        (
            "scale mail default",
            ": each worker executes as many at once as it was started with. It is paused.",
            ["-", "yes"],
        ),
    ):
        out = told(desk, *command.split())
        assert out.startswith("Queue 'mail'")
        assert out.endswith(f"{said} No live worker serves it.\n")
        assert rows(desk)[1] == ["mail", "0", *shown]
    told(desk, "resume", "mail")
    assert told(desk) == "No runs in any queue.\n", "nothing is left to say about it"


def test_what_was_decided_is_json_for_programs(desk: Desk) -> None:
    desk.run("migrate")
    for command, paused, limit in (
        ("pause mail", True, None),
        ("scale mail 3", True, 3),
        ("resume mail", False, 3),
        ("scale mail default", False, None),
    ):
        assert json.loads(told(desk, *command.split(), "--json")) == {
            "queue": "mail",
            "paused": paused,
            "limit": limit,
            "workers": 0,
        }


# --- worker processes


def started(desk: Desk, *queues: str) -> Process:
    options = [option for queue in queues for option in ("--queue", queue)]
    worker = desk.start("worker", "--app", "desk:make", *options)
    worker.wait_to_say("serves ")
    return worker


def passes(desk: Desk, queue: str, key: str) -> None:
    """A run goes through a queue: what a worker would claim at once, it has claimed by then."""
    desk.enqueue("echo", key, queue=queue)
    assert desk.run("watch", key).code == 0


def test_worker_claims_nothing_of_a_paused_queue_until_it_is_resumed(desk: Desk) -> None:
    worker = started(desk, "agents=5", "other=5")
    desk.enqueue("patient", "before")
    wait_until(lambda: "wait" in desk.notes())
    assert told(desk, "pause", "agents") == (
        "Queue 'agents' is paused; what is being executed goes on.\n"
    )
    desk.enqueue("echo", "waiting")
    passes(desk, "other", "first")
    assert state_of(desk, "waiting") == "available"
    (desk.folder / "go").touch()
    assert desk.run("watch", "before").code == 0, "what was being executed goes on"
    passes(desk, "other", "second")
    assert state_of(desk, "waiting") == "available"

    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    started(desk, "agents=5", "other=5").wait_to_say("queue agents: 5 runs at once, paused")
    passes(desk, "other", "third")
    assert state_of(desk, "waiting") == "available", "also after a restart"
    told(desk, "resume", "agents")
    assert desk.run("watch", "waiting").code == 0


def test_scaling_reaches_each_worker(desk: Desk) -> None:
    for number in range(5):
        desk.enqueue("patient", f"k{number}")
    first = started(desk, "agents=1")
    second = started(desk, "agents=1")
    wait_until(lambda: desk.notes().count("wait") == 2)
    assert told(desk, "scale", "agents", "2") == "Queue 'agents': each worker executes 2 at once.\n"
    wait_until(lambda: desk.notes().count("wait") == 4)
    queue = queue_of(desk, "agents")
    assert queue["limit"] == 2
    assert list(queue["served_by"].values()) == [1, 1]
    assert rows(desk)[1][:5] == ["agents", "2", "2", "(scaled)", "no"]
    told(desk, "scale", "agents", "default")
    for worker in (first, second):
        worker.wait_to_say("queue agents: 1 runs at once")
    assert rows(desk)[1][:4] == ["agents", "2", "1", "no"]
    (desk.folder / "go").touch()
    for number in range(5):
        assert desk.run("watch", f"k{number}").code == 0
