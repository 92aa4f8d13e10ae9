"""What people decide about calls from the command line, and how what they are asked is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.desk import Desk

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m [bold]b[/bold] \u202eevil \x9b5n\r\x08"


def as_json(desk: Desk, *arguments: str) -> Any:
    ran = desk.run(*arguments, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def refused(desk: Desk, *arguments: str) -> str:
    ran = desk.run(*arguments)
    assert (ran.code, ran.out) == (2, ""), ran
    (line,) = ran.err.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


@pytest.fixture
def asked(desk: Desk) -> Desk:
    """A desk at which ``p`` waits for approval, ``c`` for a choice, and ``q`` for a text."""
    desk.enqueue("payer", "p", tags=["vip"])
    desk.enqueue("asker", "c", queue="slow")
    desk.enqueue("curious", "q", "What now?")
    desk.work(lambda app: app.drain({"agents": 5, "slow": 5}))
    return desk


def finished(desk: Desk, key: str) -> Any:
    desk.work(lambda app: app.drain({"agents": 5, "slow": 5}))
    run = as_json(desk, "show", key)["run"]
    assert run["state"] == "completed"
    return run["output"]


def payments(desk: Desk) -> list[str]:
    return [note for note in desk.notes() if note.startswith("pay back")]


# --- the inbox


@pytest.mark.usefixtures("on_sqlite")
def test_inbox_says_what_is_asked_and_how_to_decide(asked: Desk) -> None:
    lines = asked.run("inbox").out.splitlines()
    assert lines[0].split() == ["RUN", "CALL", "KIND", "TOOL", "SINCE", "ASKED"]
    rows = {line.split()[0]: line for line in lines[1:4]}
    assert rows["p"].split()[1:4] == ["1.0", "approval", "pay_back"]
    assert '{"amount": 5}' in rows["p"] or '{"amount":5}' in rows["p"]
    assert rows["c"].split()[1:4] == ["1.0", "question", "ask_choice"]
    assert rows["c"].endswith("Which colour?")
    assert rows["q"].endswith("What now?")
    for command in ("durably approve RUN CALL", "durably deny RUN CALL", "durably answer RUN CALL"):
        assert command in "\n".join(lines[4:])
    assert "durably resolve" not in "\n".join(lines), "nothing is in doubt"


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        ((), {"p", "c", "q"}),
        (("--kind", "approval"), {"p"}),
        (("--kind", "question"), {"c", "q"}),
        (("--kind", "doubt"), set[str]()),
        (("--agent", "payer"), {"p"}),
        (("--queue", "slow"), {"c"}),
        (("--tag", "vip"), {"p"}),
        (("--kind", "question", "--queue", "agents"), {"q"}),
    ],
)
def test_inbox_is_filtered(asked: Desk, filters: tuple[str, ...], keys: set[str]) -> None:
    assert {item["run_key"] for item in as_json(asked, "inbox", *filters)} == keys
    shown = asked.run("inbox", *filters).out
    assert (shown == "Nothing waits for a decision.\n") == (not keys)


@pytest.mark.usefixtures("on_sqlite")
def test_inbox_as_json_has_all_that_a_person_is_shown(asked: Desk) -> None:
    (item,) = as_json(asked, "inbox", "--kind", "approval")
    wanted = {"run_key": "p", "agent": "payer", "queue": "agents", "tags": ["vip"]}
    wanted |= {"kind": "approval", "call_id": "1.0", "tool_name": "pay_back"}
    wanted |= {"args": {"amount": 5}, "state": "awaiting"}
    assert {name: item[name] for name in wanted} == wanted
    assert item["request"]["schema"]["properties"]["amount"] == {"type": "integer"}
    (item,) = as_json(asked, "inbox", "--queue", "slow")
    assert item["request"] == {"question": "Which colour?", "choices": ["red", "blue"]}


@pytest.mark.usefixtures("on_sqlite")
def test_run_that_waits_says_how_to_decide(asked: Desk) -> None:
    shown = asked.run("show", "p").out
    assert "durably approve p 1.0" in shown
    assert "durably deny p 1.0 --reason TEXT" in shown
    assert "--again" not in shown
    assert "durably answer q 1.0" in asked.run("show", "q").out
    assert "What now?" in asked.run("show", "q").out


# --- approve and deny


def test_approved_call_runs_once(asked: Desk) -> None:
    ran = asked.run("approve", "p", "1.0", "--by", "ann", "--note", "a good customer")
    assert (ran.code, ran.out, ran.err) == (
        *(0, "Call 1.0 of run 'p' is approved; it is available now.\n", ""),
    )
    assert finished(asked, "p") == "pay_back: paid back 5"
    assert payments(asked) == ["pay back 5"]
    (event,) = [e for e in as_json(asked, "show", "p")["events"] if e["kind"] == "approved"]
    wanted = {"by": "ann", "note": "a good customer", "call_id": "1.0", "tool": "pay_back"}
    assert event["data"] == wanted
    (decision,) = asked.work(_decisions)
    assert (decision.by, decision.note) == ("ann", "a good customer")


async def _decisions(app: Any) -> Any:
    return await (await app.get("p")).decisions()


def test_approved_with_other_arguments_it_runs_with_those(asked: Desk) -> None:
    ran = as_json(asked, "approve", "p", "1.0", "--args", '{"amount": 3}')
    assert ran["state"] == "available"
    assert finished(asked, "p") == "pay_back: paid back 3"
    assert payments(asked) == ["pay back 3"]


def test_denied_call_does_not_run_and_the_model_reads_why(asked: Desk) -> None:
    ran = asked.run("deny", "p", "1.0", "--reason", "Not without a receipt.", "--by", "bob")
    assert ran.out == "Call 1.0 of run 'p' is denied; it is available now.\n"
    assert finished(asked, "p") == "pay_back: Not without a receipt."
    assert payments(asked) == []


# --- answer


def test_answer_in_words_reaches_the_model(asked: Desk) -> None:
    ran = asked.run("answer", "q", "1.0", "Wait for spring.", "--by", "ann")
    assert ran.out == "Call 1.0 of run 'q' is answered; it is available now.\n"
    assert finished(asked, "q") == "They said: Wait for spring."


def test_answer_as_json_reaches_the_model(asked: Desk) -> None:
    assert as_json(asked, "answer", "c", "1.0", "--value", '"blue"')["state"] == "available"
    assert finished(asked, "c") == "ask_choice: blue"


# --- what is refused


@pytest.mark.usefixtures("on_sqlite")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("approve", "nobody", "1.0"), "No run has the key 'nobody'."),
        (("approve", "p", "9.9"), "Run 'p' has no effect '9.9'. Open: 1.0."),
        (("approve", "q", "1.0"), "Effect 1.0 of run 'q' is awaiting; it waits for no approval."),
        (("approve", "p", "1.0", "--args", "{oops"), "--args is not JSON: "),
        (("approve", "p", "1.0", "--args", "[1]"), "--args must be a JSON object"),
        (
            ("approve", "p", "1.0", "--args", '{"amount": "much"}'),
            "pay_back does not take these arguments: amount: 'much' is not of type 'integer'.",
        ),
        (
            ("approve", "p", "1.0", "--expected", '{"amount": 6}'),
            "no longer those that the decision was about; look at them again.",
        ),
        (("answer", "c", "1.0", "green"), "'green' is none of the choices: red, blue."),
        (("answer", "q", "1.0", "--value", "7"), "The question wants text, not int."),
        (("answer", "q", "1.0"), "Give the answer as TEXT, or as --value JSON."),
        (("answer", "q", "1.0", "a", "--value", '"b"'), "Give the answer as TEXT, or as --value"),
        (("answer", "q", "1.0", "--value", "blue"), "--value is not JSON"),
        (("inbox", "--kind", "sleepy"), "use one of: approval, answer, question, doubt, budget."),
        (("resolve", "p", "1.0", "--again"), "awaits an answer and has not run"),
    ],
)
def test_decision_that_cannot_be_is_one_sentence(
    asked: Desk, arguments: tuple[str, ...], sentence: str
) -> None:
    assert sentence in refused(asked, *arguments)
    assert len(as_json(asked, "inbox")) == 3, "all wait as before"


@pytest.mark.usefixtures("on_sqlite")
def test_expected_arguments_are_compared_as_values(asked: Desk) -> None:
    assert asked.run("approve", "p", "1.0", "--expected", '{"amount":5}').code == 0


def test_second_decision_is_refused_and_names_the_first(asked: Desk) -> None:
    assert asked.run("approve", "p", "1.0", "--by", "ann").code == 0
    sentence = refused(asked, "deny", "p", "1.0", "--by", "bob")
    assert sentence == "Effect 1.0 of run 'p' is approved, settled by ann; it waits for nobody."
    assert finished(asked, "p") == "pay_back: paid back 5"


@pytest.mark.usefixtures("on_sqlite")
def test_decision_about_a_run_that_ended_is_refused(asked: Desk) -> None:
    assert asked.run("cancel", "p").code == 0
    for arguments in (("approve", "p", "1.0"), ("deny", "p", "1.0"), ("answer", "p", "1.0", "x")):
        assert "Run 'p' is cancelled" in refused(asked, *arguments)


# --- what a model may have written


@pytest.mark.usefixtures("on_sqlite")
def test_question_that_would_command_the_terminal_is_only_shown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.enqueue("curious", "q", f"{HOSTILE} What now?")
    desk.drain()
    monkeypatch.setenv("FORCE_COLOR", "1")
    for command in (("inbox",), ("show", "q")):
        shown = desk.run(*command).out
        assert "evil" in shown
        for sequence in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e", "\x08", "\r"):
            assert sequence not in shown, command
    assert "\x1b" not in desk.run("inbox", "--json").out
    sentence = refused(desk, "approve", "q", "1.0", "--by", HOSTILE)
    assert "\x1b" not in sentence
