"""What each command does and prints, for people and for programs."""

import json
import subprocess
import sys
from typing import Any

import pytest

from support.desk import Desk

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m [bold]b[/bold] \u202eevil \x9b5n\r\x08"


def as_json(desk: Desk, *arguments: str, code: int = 0) -> Any:
    ran = desk.run(*arguments, "--json")
    assert ran.code == code, ran.err
    return json.loads(ran.out)


def test_enqueue_stores_what_it_was_told(desk: Desk) -> None:
    stored = as_json(
        desk,
        *("enqueue", "echo", "hello", "--key", "k", "--app", "desk:make", "--args", '{"a": 1}'),
        *("--meta", '{"m": [2]}', "--queue", "q", "--priority", "3", "--max-attempts", "2"),
        *("--delay", "1h", "--tag", "x", "--tag", "y"),
    )
    run = as_json(desk, "show", "k")["run"]
    assert run == stored
    expected = {"key": "k", "agent": "echo", "state": "scheduled", "queue": "q", "priority": 3}
    expected |= {"max_attempts": 2, "tags": ["x", "y"], "meta": {"m": [2]}}
    assert {name: run[name] for name in expected} == expected
    assert as_json(desk, "show", "k")["input"] == {"prompt": "hello", "args": {"a": 1}}


def test_enqueue_prints_the_key_and_creates_the_ledger(desk: Desk) -> None:
    ran = desk.run("enqueue", "any-name-without-app", "hello", "--key", "k")
    assert (ran.code, ran.out, ran.err) == (0, "k\n", "")
    assert desk.run("enqueue", "any-name-without-app", "hello", "--key", "k").out == "k\n"
    assert len(as_json(desk, "runs")) == 1


def test_enqueue_unique_for_finds_the_run_that_is_there(desk: Desk) -> None:
    first = desk.run("enqueue", "echo", "hello", "--unique-for", "1h").out
    assert desk.run("enqueue", "echo", "hello", "--unique-for", "1h").out == first


@pytest.mark.usefixtures("on_sqlite")
def test_prompt_of_10_mb_comes_through_stdin(desk: Desk) -> None:
    prompt = "äb" * 5_000_000
    done = subprocess.run(
        [sys.executable, "-m", "durably", "enqueue", "echo", "-", "--key", "big"],
        input=f"{prompt}\n".encode(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"big\n", b"")
    desk.drain()
    shown = as_json(desk, "show", "big")
    assert shown["input"]["prompt"] == prompt
    assert shown["run"]["output"].startswith("10000000: äb")
    text = desk.run("show", "big").out
    assert len(text) < 10_000
    assert "9,998,000 more characters; --full shows all" in text
    assert prompt in desk.run("show", "big", "--full").out


def test_runs_are_listed_filtered_and_paged(desk: Desk) -> None:
    for number in range(4):
        desk.enqueue("echo", f"k{number}", tags=["odd"] if number % 2 else [])
    desk.enqueue("cashier", "c", queue="money")
    assert [r["key"] for r in as_json(desk, "runs")] == ["c", "k3", "k2", "k1", "k0"]
    page = as_json(desk, "runs", "--limit", "2")
    rest = as_json(desk, "runs", "--before", str(page[-1]["id"]))
    assert [r["key"] for r in rest] == ["k2", "k1", "k0"]
    for filters, keys in (
        (("--tag", "odd"), ["k3", "k1"]),
        (("--agent", "cashier"), ["c"]),
        (("--queue", "money"), ["c"]),
        (("--state", "completed"), []),
    ):
        assert [r["key"] for r in as_json(desk, "runs", *filters)] == keys
    table = desk.run("runs", "--limit", "2").out
    assert table.splitlines()[0].split()[:4] == ["ID", "KEY", "AGENT", "STATE"]
    assert "--before" in table
    assert desk.run("runs", "--state", "completed").out == "No runs.\n"


def test_show_tells_the_run_as_a_person_reads_it(in_doubt: Desk) -> None:
    shown = in_doubt.run("show", "k").out
    for text in (
        "k  suspended",
        "agent cashier, queue agents, attempt 1, 0 of 5 failures, 0 crashes",
        "system      Charge what is asked.",
        "user        hello",
        'call 1.0    charge {"amount": 5}  [in_doubt] once (ask), attempt 1, waits for a person',
        "RuntimeError: the connection broke",
        "durably resolve k 1.0 --done JSON",
        "durably resolve k 1.0 --failed TEXT",
        "durably resolve k 1.0 --again",
        "cost unknown",
    ):
        assert text in shown
    attempts = shown[shown.index("ATTEMPTS") :].splitlines()
    assert attempts[2].split()[0] == "1"
    assert "suspended" in attempts[2]


def test_inbox_lists_what_waits(in_doubt: Desk) -> None:
    (item,) = as_json(in_doubt, "inbox")
    assert (item["run_key"], item["call_id"], item["tool_name"]) == ("k", "1.0", "charge")
    assert item["args"] == {"amount": 5}
    assert in_doubt.run("inbox").out.splitlines()[1].split()[:4] == ["k", "1.0", "doubt", "charge"]
    in_doubt.run("cancel", "k")
    assert in_doubt.run("inbox").out == "Nothing waits for a decision.\n"


@pytest.mark.parametrize(
    ("decision", "output", "charges"),
    [
        (("--done", '"it was charged"'), "charge: it was charged", 1),
        (("--failed", "card refused"), None, 1),
        (("--again",), "charge: charged 5", 2),
    ],
    ids=["done", "failed", "again"],
)
def test_resolve_settles_a_call_in_doubt(
    in_doubt: Desk, decision: tuple[str, ...], output: str | None, charges: int
) -> None:
    resolved = as_json(in_doubt, "resolve", "k", "1.0", *decision, "--by", "ann", "--note", "why")
    assert resolved["state"] == "available"
    in_doubt.drain()
    shown = as_json(in_doubt, "show", "k")
    assert shown["run"]["state"] == "completed"
    if output is not None:
        assert shown["run"]["output"] == output
    else:
        assert "card refused" in in_doubt.run("show", "k").out
    assert in_doubt.notes().count("charge 5") == charges
    (event,) = [e for e in shown["events"] if e["kind"] == "effect_resolved"]
    assert (event["data"]["by"], event["data"]["note"]) == ("ann", "why")


def test_cancel_and_retry_move_a_run(desk: Desk) -> None:
    desk.enqueue("echo", "k")
    assert "it is cancelled now" in desk.run("cancel", "k").out
    assert "durably retry k" in desk.run("show", "k").out
    assert as_json(desk, "retry", "k")["state"] == "available"
    desk.drain()
    assert as_json(desk, "show", "k")["run"]["state"] == "completed"


def test_watch_follows_to_the_end_and_says_how_it_ended(desk: Desk) -> None:
    desk.enqueue("echo", "k")
    desk.drain()
    ran = desk.run("watch", "k", "--json")
    events = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 0
    assert [event["kind"] for event in events] == ["enqueued", "claimed", "step", "completed"]
    later = desk.run("watch", "k", "--json", "--after", str(events[1]["id"]))
    assert later.out.splitlines() == ran.out.splitlines()[2:]
    lines = desk.run("watch", "k").out
    assert "user        hello" in lines
    assert "assistant   5: hello" in lines


@pytest.mark.parametrize("as_lines", [True, False])
def test_watch_of_a_run_that_did_not_complete_exits_1(desk: Desk, as_lines: bool) -> None:
    desk.enqueue("nobody-knows-it", "k")
    desk.drain()
    ran = desk.run("watch", "k", *(["--json"] if as_lines else []))
    assert ran.code == 1
    assert "No agent named 'nobody-knows-it'" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_show_of_hostile_text_obeys_none_of_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.enqueue("echo", "k\x1b]0;x\x07", f"{HOSTILE}\n", tags=[HOSTILE], meta={"m": HOSTILE})
    desk.drain()
    for command in ("show", "watch"):
        shown = desk.run(command, "k\x1b]0;x\x07").out
        assert not any((ord(c) < 32 and c != "\n") or 127 <= ord(c) < 160 for c in shown)
        assert "\u202e" not in shown
        assert "␛]0;owned␇␛[2Jred [bold]b[/bold] <U+202E>evil <U+009B>5n␍␈" in shown
    # The same on a terminal, where only rich's own colours are left.
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = desk.run("show", "k\x1b]0;x\x07").out
    assert "\x1b[" in coloured
    assert not any(sequence in coloured for sequence in ("\x1b]", "\x1b[2J", "\x07", "\x9b"))
    assert "[bold]b[/bold]" in coloured


@pytest.mark.usefixtures("on_sqlite")
def test_show_can_read_a_history_that_cannot_be_loaded(desk: Desk) -> None:
    import sqlite3

    desk.enqueue("echo", "k")
    desk.drain()
    with sqlite3.connect(desk.folder / "ledger.db") as connection:
        body = '{"kind":"response","parts":[{"part_kind":"hologram","beam":7}]}'
        connection.execute("UPDATE durably_messages SET body = ? WHERE seq = 1", [body])
        connection.execute("UPDATE durably_messages SET body = '{oops' WHERE seq = 0")
    connection.close()
    shown = desk.run("show", "k")
    assert shown.code == 0, shown.err
    assert '"beam": 7' in shown.out
    assert "{oops" in shown.out


def test_prune_deletes_old_final_runs(desk: Desk) -> None:
    for key in ("a", "b"):
        desk.enqueue("echo", key)
    desk.drain()
    desk.enqueue("echo", "open")
    assert desk.run("prune", "--older-than", "1d", "--yes").out == "Deleted 0 runs.\n"
    assert as_json(desk, "prune", "--older-than", "0", "--state", "cancelled", "--yes") == {
        "deleted": 0
    }
    assert desk.run("prune", "--older-than", "0s", "--yes").out == "Deleted 2 runs.\n"
    assert [run["key"] for run in as_json(desk, "runs")] == ["open"]


@pytest.mark.usefixtures("on_sqlite")
def test_migrate_says_what_it_found(desk: Desk) -> None:
    assert as_json(desk, "migrate")["found"] == 0
    assert as_json(desk, "migrate", "--app", "desk:make")["found"] > 0
    assert "nothing to do" in desk.run("migrate").out


def findings(desk: Desk, *arguments: str, code: int) -> dict[str, dict[str, str]]:
    report = as_json(desk, "doctor", *arguments, code=code)
    assert report["ok"] == (code == 0)
    return {finding["subject"]: finding for finding in report["findings"]}


@pytest.mark.usefixtures("on_sqlite")
def test_doctor_finds_nothing_wrong_with_a_fresh_ledger(desk: Desk) -> None:
    desk.run("migrate")
    found = findings(desk, "--app", "desk:make", code=0)
    assert found["durability"]["text"] == "journal_mode=wal, synchronous=FULL"
    assert found["integrity"]["status"] == "ok"
    assert found["agent cashier"]["status"] == "ok"
    assert found["agent stuck"]["status"] == "warning"
    assert "block: no effect declared" in found["agent stuck"]["text"]
    assert "0 problems." in desk.run("doctor").out


def test_doctor_finds_due_runs_that_nobody_serves(desk: Desk) -> None:
    desk.enqueue("echo", "k", queue="lonely")
    desk.enqueue("echo", "later", queue="later", delay=3600)
    found = findings(desk, code=1)
    assert found["queue lonely"]["status"] == "problem"
    assert "1 run due" in found["queue lonely"]["text"]
    assert "queue later" not in found


def test_doctor_says_that_a_queue_is_paused(desk: Desk) -> None:
    desk.enqueue("echo", "a")
    desk.run("queues", "pause", "agents")
    desk.run("queues", "pause", "early")
    found = findings(desk, code=0)
    assert found["queue agents"]["text"].startswith("paused; 1 run due, the oldest since 20")
    assert found["queue early"]["text"] == "paused; nothing is due"
    desk.run("queues", "resume", "agents")
    assert "no live worker serves" in findings(desk, code=1)["queue agents"]["text"]


@pytest.mark.usefixtures("on_sqlite")
def test_doctor_finds_what_is_no_ledger(desk: Desk) -> None:
    assert "`durably migrate` creates it" in findings(desk, code=1)["ledger"]["text"]
    assert not (desk.folder / "ledger.db").exists()
    (desk.folder / "ledger.db").write_text("This is no database, whatever its name says." * 100)
    assert "not a usable SQLite database" in findings(desk, code=1)["ledger"]["text"]


@pytest.mark.usefixtures("on_sqlite")
def test_doctor_finds_damage(desk: Desk) -> None:
    for number in range(50):
        desk.enqueue("echo", f"k{number}", "x" * 3000)
    path = desk.folder / "ledger.db"
    data = bytearray(path.read_bytes())
    data[40_000:60_000] = b"\xa5" * 20_000
    path.write_bytes(data)
    found = findings(desk, code=1)
    assert "problem" in {finding["status"] for finding in found.values()}


@pytest.mark.usefixtures("on_sqlite")
def test_version_is_printed(desk: Desk) -> None:
    assert desk.run("--version").out.startswith("durably 0.")
