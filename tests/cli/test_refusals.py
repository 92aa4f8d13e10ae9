"""What cannot be done as asked ends in one sentence on stderr and exit code 2, no traceback."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from durably import Durably
from support.desk import Desk


def refused(desk: Desk, *arguments: str) -> str:
    """Run a command that must be refused; returns its one line on stderr."""
    ran = desk.run(*arguments)
    assert ran.code == 2, ran
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("show nobody", "No run has the key 'nobody'."),
        ("watch nobody", "No run has the key 'nobody'."),
        ("cancel nobody", "No run has the key 'nobody'."),
        ("cancel done", "Run 'done' is completed; 'cancel' is only possible from"),
        ("retry done", "Run 'done' is completed; 'revive' is only possible from"),
        ("resolve done 1.0 --again", "Run 'done' is completed"),
        ("runs --state sleeping", "'sleeping' is no state; use one of: scheduled, available"),
        ("enqueue echo other --key done", "belongs to a run with another prompt"),
        ("prune --older-than 30d --state executing", "'executing' runs are not pruned"),
    ],
)
def test_what_the_ledger_refuses_is_one_sentence_and_exit_code_2(
    desk: Desk, arguments: str, sentence: str
) -> None:
    desk.enqueue("echo", "done")
    desk.drain()
    assert sentence in refused(desk, *arguments.split(" "))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("resolve done 1.0", "one of --done JSON, --failed TEXT, --again"),
        ("resolve done 1.0 --again --failed x", "one of --done JSON, --failed TEXT, --again"),
        ("resolve done 1.0 --done {oops", "--done is not JSON: "),
        ("resolve done 1.0 --done ok", """A string is written with its quotes: '"ok"'."""),
        ("runs --url oracle://x", "oracle:// is no database that this version knows"),
        ("runs --url sqlite:///:memory:", "would not survive this process"),
        ("runs --url nothing-here.db", "There is no ledger at sqlite:///nothing-here.db"),
        ("runs --url desk.py", "desk.py is not a usable SQLite database"),
        ("runs --url no/such/folder/x.db", "There is no ledger at"),
        ("migrate --url no/such/folder/x.db", "the folder no/such/folder does not exist"),
        ("runs --app desk:make --url x.db", "Give --app or --url, not both"),
        ("enqueue nobody hi --app desk:make", "Registered: 'asker', 'boss', 'cashier', "),
        ("enqueue echo hi --args {oops", "--args is not JSON"),
        ("enqueue echo hi --args [1]", "--args must be a JSON object"),
        ('enqueue echo hi --meta {"a":NaN}', "--meta is not JSON: NaN is no JSON"),
        ("enqueue echo hi --delay soon", "write a duration such as 30, 30s"),
        ("enqueue echo hi --unique-for ever", "write a duration such as 30, 30s"),
        ("enqueue echo hi --priority 11", "priority=11: 0 (first) to 9."),
        ("worker", "Which application? Add --app or set DURABLY_APP"),
        ("worker --app desk:make --queue x=0", "--queue 'x=0': write name=20"),
        ("worker --app desk:make --queue =3", "--queue '=3': write name=20"),
        ("worker --app desk:make --lease never", "--lease 'never': write a duration"),
        ("worker --app desk:make --log-level loud", "--log-level 'loud': use debug"),
        ("runs --app missing_app", "There is no module 'missing_app' here"),
        ("runs --app desk:nothing", "Module 'desk' has no 'nothing'."),
        ("runs --app desk:not_an_app", "desk:not_an_app is a int, not a Durably"),
        ("runs --app desk:breaks", "Calling desk:breaks failed: ZeroDivisionError: no way"),
        ("runs --app broken_app", "Importing 'broken_app' failed: RuntimeError: no licence"),
        ("runs --app desk.py:make", "There is no module 'desk.py' here"),
        ("runs --app ../desk:make", "names no application: write module:attribute"),
        ("queues scale mail 0", "LIMIT '0': write a number from 1, or default; to stop a queue"),
        ("queues scale mail many", "LIMIT 'many': write a number from 1, or default"),
        ("queues pause ", "The queue's name is empty."),
        ("queues --json pause mail", "Write the options behind: durably queues pause ..."),
        ("queues pause mail --url nothing-here.db", "There is no ledger at"),
        ("prune --older-than long", "--older-than 'long': write a duration"),
    ],
)
@pytest.mark.usefixtures("on_sqlite")
def test_refusal_is_one_sentence_and_exit_code_2(desk: Desk, arguments: str, sentence: str) -> None:
    desk.run("migrate")
    assert sentence in refused(desk, *arguments.split(" "))


@pytest.mark.usefixtures("on_sqlite")
def test_looking_at_a_wrong_url_creates_nothing(desk: Desk) -> None:
    refused(desk, "runs", "--url", str(desk.folder / "typo.db"))
    assert not (desk.folder / "typo.db").exists()


@pytest.mark.usefixtures("on_sqlite")
def test_looking_at_another_database_adds_no_tables_to_it(desk: Desk) -> None:
    import sqlite3

    connection = sqlite3.connect(desk.folder / "shop.db")
    connection.execute("CREATE TABLE orders (id)")
    connection.close()
    assert "There is no ledger at" in refused(desk, "runs", "--url", str(desk.folder / "shop.db"))
    connection = sqlite3.connect(desk.folder / "shop.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("orders",)]
    connection.close()


def test_unknown_call_is_refused_with_the_open_ones(in_doubt: Desk) -> None:
    sentence = refused(in_doubt, "resolve", "k", "9.9", "--again")
    assert sentence == "Run 'k' has no effect '9.9'. Open: 1.0."


def test_settled_call_is_refused(in_doubt: Desk) -> None:
    assert in_doubt.run("resolve", "k", "1.0", "--done", "1", "--by", "ann").code == 0
    assert "settled by ann" in refused(in_doubt, "resolve", "k", "1.0", "--again")


def test_empty_prompt_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(desk, "enqueue", "echo", " ") == "The prompt is empty."
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert "not UTF-8" in refused(desk, "enqueue", "echo", "-")


@pytest.mark.usefixtures("on_sqlite")
def test_argument_that_is_not_utf8_is_refused(desk: Desk) -> None:
    # What Python makes of an argument with the byte 0xff.
    assert "is not UTF-8" in refused(desk, "enqueue", "echo", "hi\udcff")


def test_prune_asks_somebody_or_refuses(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.enqueue("echo", "done")
    desk.drain()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "This would delete 1 run" in refused(desk, "prune", "--older-than", "0")
    assert desk.run("show", "done").code == 0


@pytest.mark.usefixtures("on_sqlite")
def test_app_without_its_dependency_says_which(desk: Desk) -> None:
    (desk.folder / "needy.py").write_text("import not_installed_at_all")
    sys.path.insert(0, str(desk.folder))
    try:
        sentence = refused(desk, "runs", "--app", "needy")
    finally:
        sys.path.remove(str(desk.folder))
    assert "Importing 'needy' failed: ModuleNotFoundError" in sentence
    assert "'not_installed_at_all'" in sentence


def test_sentence_obeys_no_terminal_sequence(desk: Desk) -> None:
    desk.run("migrate")
    assert "\x1b" not in refused(desk, "show", "\x1b]0;owned\x07")


@pytest.mark.usefixtures("on_sqlite")
def test_internal_error_shows_a_traceback_only_when_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(Durably, "get", broken)
    desk.run("migrate")
    ran = desk.run("show", "k")
    assert ran.code == 70
    assert ran.err == "Error: durably failed unexpectedly: KeyError: 'oops' (--debug shows where)\n"
    ran = desk.run("show", "k", "--debug")
    assert ran.code == 70
    assert "Traceback" in ran.err


@pytest.mark.usefixtures("on_sqlite")
def test_interrupt_is_tidy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Durably, "get", interrupted)
    desk.run("migrate")
    ran = desk.run("watch", "k")
    assert (ran.code, ran.err) == (130, "")


@pytest.mark.usefixtures("on_sqlite")
def test_missing_argument_is_exit_code_2(desk: Desk) -> None:
    ran = desk.run("show")
    assert ran.code == 2
    assert "KEY" in ran.err


@pytest.mark.usefixtures("on_sqlite")
def test_settings_name_the_app_and_the_ledger(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DURABLY_APP", "desk:make")
    assert "No agent named 'nobody'" in refused(desk, "enqueue", "nobody", "hi")
    monkeypatch.delenv("DURABLY_APP")
    monkeypatch.delenv("DURABLY_URL")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "durably.toml").write_text('url = "sqlite:///mine.db"')
    assert desk.run("migrate").out.startswith("sqlite:///mine.db: created, schema ")
    (tmp_path / "durably.toml").write_text("url =")
    assert "durably.toml" in refused(desk, "runs")


def test_help_imports_no_agents_no_driver_and_no_rich() -> None:
    heavy = ["pydantic_ai", "pydantic", "rich", "sqlite3", "asyncio", "durably.app"]
    code = (
        "import json, sys\n"
        "from durably.cli.main import run\n"
        "code = run(['--help'])\n"
        f"print(json.dumps([code, [name for name in {heavy} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "enqueue" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]
