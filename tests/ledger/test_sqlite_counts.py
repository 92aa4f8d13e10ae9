"""How many rows a statement changed: as SQLite's driver counts them, and as they say themselves."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from durably.ledger.operations import execute, fetch
from durably.ledger.sqlite.connection import connect, drive
from durably.ledger.sqlite.schema import upgrade
from durably.ledger.sqlite.statements import statements
from support.ledgers import Clock

RUN: dict[str, object] = {"run_id": 1, "attempt": 1}
CALL = RUN | {
    "response": 1,
    "call": 0,
    "step": "",
    "tool_name": "charge",
    "tool_call_id": "c",
    "args": "{}",
    "policy": "once",
    "on_doubt": "ask",
    "idempotency_key": "k:1.0",
}
DONE = CALL | {
    "state": "done",
    "asked": False,
    "result": "1",
    "error": None,
    "began_seconds": 0.0,
    "ended_seconds": 0.0,
}
SPENT = dict.fromkeys(("usage", "tokens", "cost_nanousd", "own_nanousd", "model"))


def message(seq: int, place: str = "") -> dict[str, object]:
    return {f"seq{place}": seq, f"kind{place}": "request", f"body{place}": "{}"}


CHANGES: list[tuple[str, dict[str, object], int]] = [
    ("touch_run", RUN | SPENT, 1),
    ("touch_run", RUN | SPENT | {"attempt": 2}, 0),
    ("insert_message", RUN | message(1), 1),
    ("insert_message", RUN | message(0), 0),  # It is there already.
    ("insert_two_messages", RUN | message(1, "_a") | message(2, "_b"), 2),
    ("insert_two_messages", RUN | message(0, "_a") | message(1, "_b"), 1),
    ("insert_intent", CALL, 1),
    ("insert_intent", CALL | {"response": 0}, 0),  # It is started already.
    ("insert_intent", CALL | {"response": 2}, 1),  # It is in doubt.
    ("insert_intent", CALL | {"attempt": 2}, 0),
    ("record_outcome", DONE, 1),
    ("record_outcome", DONE | {"response": 0}, 1),  # Of a call that was started.
    ("record_outcome", DONE | {"attempt": 2}, 0),
    ("doubt_effects", RUN, 1),
    ("doubt_effects", RUN | {"attempt": 0}, 0),
    ("drop_deltas", {"run_id": 1, "after": 0}, 0),
]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger with a run that has a message, and a call that was started."""
    with closing(connect(tmp_path / "ledger.db", Clock())) as made:
        upgrade(made)
        made.execute(
            "INSERT INTO durably_runs (key, agent, queue, state, worker_id, attempt, max_attempts,"
            " scheduled_at, inserted_at) VALUES ('k', 'a', 'q', 'executing', 'w', 1, 5, '', '')"
        )
        drive(made, execute("insert_message", **RUN, **message(0)), Clock())
        drive(made, execute("insert_intent", **CALL | {"response": 0}), Clock())
        doubted = DONE | {"response": 2, "state": "in_doubt"}
        drive(made, execute("record_outcome", **doubted), Clock())
        yield made


@pytest.mark.parametrize(("name", "params", "changed"), CHANGES)
def test_as_many_are_counted_as_are_returned(
    connection: sqlite3.Connection, name: str, params: dict[str, object], changed: int
) -> None:
    assert statements()[name].counted is not None
    connection.execute("BEGIN")
    assert len(drive(connection, fetch(name, **params), Clock())) == changed
    connection.execute("ROLLBACK")
    assert drive(connection, execute(name, **params), Clock()) == changed


def test_nothing_but_what_is_returned_is_left_out() -> None:
    for name, prepared in statements().items():
        if prepared.counted is not None:
            left_out = prepared.text.removeprefix(prepared.counted)
            assert left_out.split()[0] == "RETURNING", name
            assert "RETURNING" not in prepared.counted, name


def test_what_sqlite3_cannot_count_is_returned() -> None:
    """Whatever begins with WITH, and what returns more than columns."""
    for name, prepared in statements().items():
        lines = [line for line in prepared.text.splitlines() if not line.startswith("--")]
        if lines[0].startswith("WITH"):
            assert prepared.counted is None, name
