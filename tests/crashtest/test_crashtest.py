"""`durably crashtest`: real applications, processes and SIGKILL, and what it says of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from crashtest.conftest import APPS, Bench
from durably.cli.main import run
from durably.demo.site import Site
from support.sample import longer

SOME = ("--at", "intent:after#1", "--at", "outcome:before#1", "--at", "decision:before#1")
ALL = ("--at", "tool", "--at", "outcome", "--at", "intent", "--at", "checkpoint", "--at", "settle")

TWICE = 2
"""How often an undisturbed run is made: recorded, and played again."""


@pytest.mark.parametrize("strikes", [SOME, longer(ALL)])
def test_a_correct_agent_passes_and_leaves_nothing_behind(
    either_bench: Bench, strikes: tuple[str, ...]
) -> None:
    tested = either_bench.crashtest("careful", *strikes, "--probe", "counter:count_recognised")
    assert tested.code == 0, tested.out
    report = tested.report
    assert report["ok"] and report["findings"] == []
    assert all(crash["killed"] for crash in report["crashes"])
    assert all(crash["agreed"]["history"] for crash in report["crashes"])
    crashes = len(report["crashes"])
    for name in ("charge", "refund"):
        tool = tested.tool(name)
        assert (tool["policy"], tool["ran"], tool["expected"]) == ("once (ask)", crashes, crashes)
        assert either_bench.outside(name) == TWICE + crashes, "exactly once in every run"
    doubts = tested.tool("charge")["doubts"]
    assert doubts["again: it had not begun"] >= 1, "killed between its intent and its start"
    assert doubts["done: it had ended"] >= 1, "killed between its end and its record"
    if either_bench.database is not None:
        schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'durably%'"
        with psycopg.connect(either_bench.database) as connection:
            assert connection.execute(schemas).fetchall() == []


@pytest.mark.parametrize(
    ("probe", "code"),
    [longer(None, 0), ("counter:count", 1), longer("counter:count_by_tool", 1)],
)
def test_a_tool_declared_idempotent_that_is_not_is_found_with_a_probe(
    bench: Bench, probe: str | None, code: int
) -> None:
    options = [] if probe is None else ["--probe", probe]
    tested = bench.crashtest("careless", "--at", "tool:after#2", *options)
    assert tested.code == code, tested.out
    pay = tested.tool("pay")
    assert (pay["ran"], pay["expected"], pay["repeated_at"]) == (2, 1, ["tool:after #2"])
    if probe is None:
        assert pay["ok"] and "IDEMPOTENT allows" in pay["verdict"]
        return
    assert not pay["ok"]
    # A probe that tells tools apart blames only this one; without, all that ran again.
    (finding,) = [found for found in tested.report["findings"] if found["tool"] == "pay"]
    assert (finding["kind"], finding["at"]) == ("probe", "tool:after #2")
    assert "pay is declared IDEMPOTENT and is not" in finding["text"]


def test_a_once_tool_whose_reconcile_is_wrong_repeats_and_is_named(bench: Bench) -> None:
    tested = bench.crashtest("forgetful", "--at", "tool")
    assert tested.code == 1
    (finding,) = tested.report["findings"]
    assert (finding["kind"], finding["tool"], finding["at"]) == ("repeat", "send", "tool:after #1")
    assert "reconcile" in finding["text"]


def test_a_message_that_streams_is_crashed_in_its_middle(bench: Bench) -> None:
    tested = bench.crashtest("streamer", "--at", "delta", "--sample", "3")
    assert tested.code == 0, tested.out
    killed = [crash for crash in tested.report["crashes"] if crash["killed"]]
    assert killed
    assert any(crash["requests_repeated"] for crash in killed), "one was in flight"


def test_waits_questions_signals_and_children_are_carried_through(bench: Bench) -> None:
    _waits_are_carried_through(bench, "--at", "step:after", "--at", "child:before")


@pytest.mark.longer
def test_so_they_are_wherever_it_is_killed(either_bench: Bench) -> None:
    _waits_are_carried_through(either_bench, "--at", "wait", "--at", "step", *ALL)


def _waits_are_carried_through(bench: Bench, *strikes: str) -> None:
    others = ("--answer", '"Twice."', "--signal", 'parts={"left": 2}')
    tested = bench.crashtest("patient", *strikes, *others, "--probe", "counter:count_recognised")
    assert tested.code == 0, tested.out
    step = tested.tool("plan/first")
    assert (step["ran"], step["policy"]) == (step["crashes"], "once (ask)")
    assert tested.tool("charge")["ran"] == step["crashes"], "of the child"


@pytest.mark.longer
def test_a_denied_call_does_not_run(bench: Bench) -> None:
    tested = bench.crashtest("careful", "--deny", "--at", "decision")
    assert tested.code == 0, tested.out
    assert bench.outside("refund") == 0
    assert bench.outside("charge") == TWICE + len(tested.report["crashes"])


@pytest.mark.longer
def test_deps_output_types_and_fallback_models_are_as_in_any_run(bench: Bench) -> None:
    tested = bench.crashtest("typed", "--args", '{"number": 7}', "--at", "checkpoint")
    assert tested.code == 0, tested.out
    assert tested.report["output"] == {"number": 42}


def test_a_real_model_is_asked_once_for_each_response_and_only_if_told_so(bench: Bench) -> None:
    refused = bench.crashtest("paying", app="counter:real")
    assert refused.code == 2
    assert "Add --yes" in refused.err
    assert bench.outside("model") == 0

    strikes = ("--at", "tool:after", "--at", "model:before")
    tested = bench.crashtest("paying", *strikes, "--yes", app="counter:real")
    assert tested.code == 0, tested.out + tested.err
    assert len(tested.report["crashes"]) == 3
    assert bench.outside("model") == 2, "its responses were recorded, and played ever after"


def test_an_agent_that_a_tool_runs_by_itself_may_not_ask_a_real_model(bench: Bench) -> None:
    tested = bench.crashtest("gossip", "--yes", app="counter:real")
    assert tested.code == 2
    assert "Tool 'ask_around' runs an agent by itself" in tested.err
    assert "durably.run_child" in tested.err
    assert bench.outside("model") == 1, "while it was recorded, as in any run"


@pytest.mark.longer
def test_a_process_with_threads_is_not_forked(bench: Bench) -> None:
    tested = bench.crashtest("careless", "--at", "tool:after#1", app="threaded:make")
    assert tested.code == 0, tested.out
    assert tested.report["forked"] is False


def test_the_demo_passes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURABLY_DEMO_FOLDER", str(bench.folder))
    site = Site(bench.folder)
    site.database.make_shop()
    args = '{"ticket": "T-1002", "email": "ben@mail.example"}'
    prompt = "Could you upgrade order 40231 to express shipping?"
    tested = bench.crashtest(
        "support", "--prompt", prompt, "--args", args, "--setup", "kitchen:setup",
        "--at", "tool:after", "--sample", "5", app="kitchen:make",
    )  # fmt: skip
    assert tested.code == 0, tested.out + tested.err
    assert tested.tool("charge_card")["policy"] == "once (reconcile)"
    assert tested.report["varies"], "each charge has an id of its own"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("nowhere:app --prompt x", "There is no module 'nowhere'"),
        ("counter:make --prompt x", "Which agent? Add --agent"),
        ("counter:make --agent nobody --prompt x", "No agent named 'nobody'"),
        ("counter:make --agent careful", "Add --prompt"),
        ("counter:real --agent modelless --prompt x", "has no model of its own"),
        ("counter:make --agent careful --prompt x --args [1]", "--args must be a JSON object"),
        ("counter:make --agent careful --prompt x --signal go", "write NAME=JSON"),
        ("counter:make --agent careful --prompt x --probe counter", "names no function"),
        ("counter:make --agent careful --prompt x --probe counter:none", "has no 'none'"),
        ("counter:make --agent careful --prompt x --database a.db", "for postgresql://"),
        ("counter:make --agent careful --prompt x --at Tool!", "write a boundary"),
        ("counter:make --agent careful --prompt x --timeout soon", "write a duration"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(
    bench: Bench, arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["crashtest", *arguments.split(" "), "--yes"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err and len(said.err.splitlines()) == 1
    assert not (bench.folder / "outside.jsonl").exists()


@pytest.mark.parametrize(
    ("agent", "options", "sentence"),
    [
        ("patient", ("--signal", "parts=1"), "say what they answer, with --answer JSON"),
        longer("patient", ("--answer", '"x"'), "say what comes, with --signal parts=JSON"),
        longer("careful", ("--at", "delta"), "the run reaches no such boundary"),
        longer("careful", ("--probe", "counter:confused"), "returned 'many'"),
    ],
)
def test_what_the_run_turns_out_to_need_is_said_in_one_sentence(
    bench: Bench, agent: str, options: tuple[str, ...], sentence: str
) -> None:
    tested = bench.crashtest(agent, *options)
    assert (tested.code, tested.out) == (2, "")
    assert sentence in tested.err and len(tested.err.splitlines()) == 1


def test_ctrl_c_ends_every_process_and_removes_everything(bench: Bench) -> None:
    command = [sys.executable, "-m", "durably", "crashtest", "counter:make", "--agent", "careful"]
    process = subprocess.Popen(
        [*command, "--prompt", "Go."],
        cwd=APPS,
        env={**os.environ, "TMPDIR": str(bench.folder / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 300
        while bench.outside("charge") < TWICE + 1:  # It is crashing by now.
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (130, ""), err
    assert _processes_of(bench.folder) == []


def _processes_of(folder: Path) -> list[str]:
    """The processes that were started for this folder, by their environment."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue  # It has ended, or is somebody else's.
        if f"TMPDIR={folder}/tmp".encode() in environment:
            found.append((process / "cmdline").read_bytes().decode())
    return found
