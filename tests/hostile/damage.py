"""Runs half way through their work, and what somebody may do to their rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from durably import effects
from support.sample import EVERYTHING

# Each is told from any other by what is wrong with it; valid JSON of a wrong shape comes last.
NOT_JSON = ("{", "", "NaN", '{"a":1e999}', "[" * 20_000 + "]" * 20_000)
WRONG_SHAPE = (
    "null",
    "[]",
    "5",
    '"x"',
    '{"a":"\\ud800","kind":7,"waits":5,"effects":9,"requests":"x"}',
)
JSON_COLUMNS = {
    "runs": ("tags", "meta", "usage", "waiting_on", "budget"),
    "inputs": ("prompt", "args"),
    "messages": ("body",),
    "effects": ("result", "request"),
    "events": ("data",),
    "notices": ("taken_by",),
}
TEXT_COLUMNS = {
    "effects": ("args", "tool_call_id"),
    "attempts": ("fingerprint", "outcome"),
}
TIMES = {
    "runs": ("scheduled_at", "inserted_at", "attempted_at"),
    "effects": ("started_at", "asked_at"),
    "messages": ("inserted_at",),
    "events": ("at",),
}


def clerk(done: list[str]) -> Agent[None, str]:
    """An agent that acts, then asks somebody, then says that it is done."""

    def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        if any(isinstance(m, ModelResponse) for m in messages):
            return ModelResponse([TextPart("done")])
        return ModelResponse(
            [ToolCallPart("act", {"n": 1}, "a"), ToolCallPart("pay", {"n": 2}, "b")]
        )

    agent: Agent[None, str] = Agent(FunctionModel(answer), name="clerk")

    @agent.tool_plain(metadata=effects.once())
    def act(n: int) -> str:
        done.append("act")
        return f"acted {n}"

    @agent.tool_plain(metadata=effects.once(), requires_approval=True)
    def pay(n: int) -> str:
        done.append("pay")
        return f"paid {n}"

    return agent


def damages(sqlite: bool) -> Iterator[tuple[str, str, str | bytes]]:
    """Table, column, and what somebody writes there; only what the database takes.

    Of a sample, each column has one kind of damage, and each kind its columns.
    """
    turn = 0
    for known, any_text in ((JSON_COLUMNS, sqlite), (TEXT_COLUMNS, True)):
        for table, columns in known.items():
            for column in columns:
                # PostgreSQL's JSON takes no half character.
                shapes = WRONG_SHAPE if any_text else WRONG_SHAPE[:-1]
                junks = (*(NOT_JSON if any_text else ()), *shapes)
                turn += 1
                for junk in junks if EVERYTHING else (junks[turn * 3 % len(junks)],):
                    yield table, column, junk
    for table, columns in TIMES.items():
        for column in columns:
            times = ("soon", "", "9999-99-99") if sqlite else ("infinity", "-infinity")
            for junk in times if EVERYTHING else times[:1]:
                yield table, column, junk
    if sqlite:
        yield "runs", "meta", b"\xff\xfe{"
        yield "messages", "body", b'{"kind":"\xff"}'


def damage(url: str, key: str, table: str, column: str, junk: str | bytes) -> None:
    """Write it into every row that the run has in the table."""
    where = "id" if table == "runs" else "run_id"
    of = f"WHERE {where} = (SELECT id FROM durably_runs WHERE key = "
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
            value = "CAST(? AS TEXT)" if isinstance(junk, bytes) else "?"
            connection.execute(
                f"UPDATE durably_{table} SET {column} = {value} {of} ?)", (junk, key)
            )
        return
    with psycopg.connect(url, autocommit=True) as connection:
        parameters: tuple[Any, ...] = (junk, key)
        connection.execute(
            f"UPDATE durably_{table} SET {column} = %s {of} %s)".encode(), parameters
        )
