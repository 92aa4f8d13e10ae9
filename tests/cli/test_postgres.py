"""The command line with a ledger on PostgreSQL: who makes its tables, and what is never printed."""

from __future__ import annotations

import json
import signal
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from durably.ledger import schema
from support.desk import Desk
from support.roles import PASSWORD, logged_in_as

NEWEST = schema.newest_version("postgres")

pytestmark = pytest.mark.usefixtures("on_postgres")


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def said(desk: Desk, *arguments: str, code: int = 0) -> str:
    """The one line that a command prints, on stdout if it succeeds and on stderr if not."""
    ran = desk.run(*arguments)
    assert ran.code == code, ran
    out, other = (ran.out, ran.err) if code == 0 else (ran.err, ran.out)
    assert other == ""
    (line,) = out.splitlines()
    return line


@pytest.fixture
def empty(desk: Desk, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose database has no ledger yet."""
    desk.url = database_url
    monkeypatch.setenv("DURABLY_URL", database_url)
    return desk


@pytest.fixture
def own(desk: Desk, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose tables may be changed."""
    desk.url = migrated_url
    monkeypatch.setenv("DURABLY_URL", migrated_url)
    return desk


# --- the tables

COMMANDS = [
    ("enqueue", "echo", "hello"),
    ("enqueue", "echo", "hello", "--app", "desk:make"),
    ("runs",),
    ("show", "k"),
    ("watch", "k"),
    ("inbox",),
    ("cancel", "k"),
    ("retry", "k"),
    ("approve", "k", "1.0"),
    ("resolve", "k", "1.0", "--again"),
    ("queues",),
    ("queues", "pause", "agents"),
    ("prune", "--older-than", "1d", "--yes"),
]


def test_commands_without_tables_are_refused_and_make_none(empty: Desk) -> None:
    for command in COMMANDS:
        assert said(empty, *command, code=2) == (
            f"Error: There is no ledger at {empty.url}: check the URL, or create it with "
            "`durably migrate`."
        ), command
    assert (
        said(empty, "migrate") == f"{empty.url}: created, schema {NEWEST}; Oban's tables created."
    )


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (-1, f" has schema -1, this version of durably needs {NEWEST}: run `durably migrate`."),
        (NEWEST + 1, f" was written by a newer durably (schema {NEWEST + 1}; this version knows"),
    ],
)
def test_worker_and_enqueue_refuse_tables_of_another_version(
    own: Desk, version: int, says: str
) -> None:
    execute(own.url, f"UPDATE durably_schema SET version = {version}")
    assert f"Error: {own.url}{says}" in said(own, "enqueue", "echo", "hello", code=2)
    worker = own.start("worker", "--app", "desk:make")
    assert worker.wait() == 2
    assert f"Error: {own.url}{says}" in worker.err.splitlines()[-1]
    assert "Traceback" not in worker.err


def test_worker_without_tables_is_refused(empty: Desk) -> None:
    worker = empty.start("worker", "--app", "desk:make")
    assert worker.wait() == 2
    assert worker.err.splitlines()[-1].startswith(f"Error: There is no ledger at {empty.url}: ")


def test_migrate_says_what_it_did_for_both_kinds_of_tables(empty: Desk) -> None:
    assert json.loads(empty.run("migrate", "--json").out) == {
        "url": empty.url,
        "found": 0,
        "version": NEWEST,
        "oban": "created",
    }
    nothing = f"{empty.url}: schema {NEWEST}, nothing to do."
    assert said(empty, "migrate") == nothing
    execute(empty.url, "DROP TABLE oban_leaders")
    assert said(empty, "migrate") == (
        f"{empty.url}: schema {NEWEST}; Oban's tables were there and have been completed."
    )
    assert said(empty, "migrate") == nothing
    assert json.loads(empty.run("migrate", "--json").out)["oban"] == "unchanged"


def test_migrate_sql_prints_what_is_needed_and_changes_nothing(empty: Desk) -> None:
    ran = empty.run("migrate", "--sql")
    assert (ran.code, ran.err) == (0, "")
    assert "CREATE TABLE durably_runs" in ran.out
    assert "oban_jobs" in ran.out
    assert "There is no ledger" in said(empty, "runs", code=2)
    execute(empty.url, ran.out)
    found = json.loads(empty.run("doctor", "--json").out)
    assert found["ok"], found
    assert said(empty, "migrate", "--sql") == f"-- {empty.url}: schema {NEWEST}, nothing to do."


def test_migrate_sql_from_a_version_asks_no_server(desk: Desk) -> None:
    nowhere = ("--url", "postgresql://nobody@nowhere.invalid/db?schema=mine", "--sql", "--from")
    ran = desk.run("migrate", *nowhere, "0")
    assert (ran.code, ran.err) == (0, "")
    assert 'SET LOCAL search_path = "mine";' in ran.out
    assert "There is no schema 99: from 0" in said(desk, "migrate", *nowhere, "99", code=2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--from", "0"), "--from is for --sql: "),
        (("--sql", "--json"), "Give --sql or --json, not both."),
        (("--sql", "--url", "sqlite:///x.db"), "sqlite:///x.db needs no script: whoever opens"),
        (("--sql", "--url", "postgresql://h/db?schema=Mine"), "schema='Mine': small letters"),
    ],
)
def test_migrate_refuses_what_makes_no_sense(
    desk: Desk, options: tuple[str, ...], says: str
) -> None:
    assert says in said(desk, "migrate", *options, code=2)


def test_doctor_looks_at_the_server(own: Desk) -> None:
    found = {f["subject"]: f for f in json.loads(own.run("doctor", "--json").out)["findings"]}
    for subject in ("PostgreSQL", "durability", "connections", "notices", "ledger", "Oban"):
        assert found[subject]["status"] == "ok"
    execute(own.url, "DROP TABLE oban_producers")
    ran = own.run("doctor")
    assert ran.code == 1
    assert "oban_producers missing; run `durably migrate`." in ran.out


# --- passwords

TALKATIVE = [
    ("migrate",),
    ("migrate", "--sql"),
    ("doctor",),
    ("enqueue", "echo", "hello"),
    ("runs",),
    ("queues",),
    ("watch", "k"),
    ("transfer", "sqlite:///nothing-here.db"),
]


def run(desk: Desk, command: tuple[str, ...], url: str) -> Any:
    """Run a command on a ledger, and have it say all that it can."""
    if command[0] == "transfer":
        return desk.run(*command, url, "--debug")
    return desk.run(*command, "--url", url, "--debug")


def test_no_command_prints_the_password(desk: Desk, database_url: str) -> None:
    """Neither before there are tables nor after."""
    url = logged_in_as(database_url, urlsplit(database_url).username or "")
    for command in (*TALKATIVE[1:], ("migrate",), *TALKATIVE):
        ran = run(desk, command, url)
        assert PASSWORD not in ran.out + ran.err, command


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://127.0.0.1:1/db?user=me&password={PASSWORD}",
        f"postgresql://me:{PASSWORD}/x@127.0.0.1:1/db",
        f"postgresql://me:{PASSWORD}%zz@127.0.0.1:1/db",
        f"postgresql://me:{PASSWORD}@127.0.0.1:1/db?schema=Mine",
        f"oracle://me:{PASSWORD}@127.0.0.1:1/db",
    ],
)
def test_no_refusal_prints_the_password(desk: Desk, url: str) -> None:
    for command in TALKATIVE:
        ran = run(desk, command, url)
        assert ran.code in ((0, 1, 2) if "--sql" in command else (1, 2)), ran
        assert PASSWORD not in ran.out + ran.err, command


def test_worker_does_not_print_the_password(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    user = urlsplit(desk.url).username or ""
    monkeypatch.setenv("DURABLY_URL", logged_in_as(desk.url, user))
    worker = desk.start("worker", "--app", "desk:make", "--log-level", "debug")
    worker.wait_to_say("serves agents=20")
    desk.enqueue("echo", "k")
    assert desk.run("watch", "k").code == 0
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert PASSWORD not in worker.err
    assert f"@{urlsplit(desk.url).hostname}" in worker.err
