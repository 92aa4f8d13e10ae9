"""Elixir's Oban, as far as durably meets it: the tables that its migrations leave, and the
statements with which it inserts a job.

Facts about Oban 2.23 and Ecto; Elixir itself need not be there.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

OLD_STATES = (
    "available scheduled executing retryable completed discarded cancelled"  # up to version 13
)
STATES = "available suspended scheduled executing retryable completed discarded cancelled"

# As version 14 of the migrations leaves them, version 13 too but for a state. Errors are an array
# of documents here, a document with an array where Python's Oban makes the table.
TABLES = """
CREATE TABLE {p}.oban_jobs (
    id           bigserial PRIMARY KEY,
    state        {p}.oban_job_state NOT NULL DEFAULT 'available',
    queue        text NOT NULL DEFAULT 'default',
    worker       text NOT NULL,
    args         jsonb NOT NULL DEFAULT '{{}}',
    errors       jsonb[] NOT NULL DEFAULT ARRAY[]::jsonb[],
    attempt      integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL DEFAULT 20,
    inserted_at  timestamp NOT NULL DEFAULT timezone('UTC', now()),
    scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
    attempted_at timestamp,
    completed_at timestamp,
    attempted_by text[],
    discarded_at timestamp,
    priority     integer NOT NULL DEFAULT 0,
    tags         text[] DEFAULT ARRAY[]::text[],
    meta         jsonb DEFAULT '{{}}',
    cancelled_at timestamp,
    CONSTRAINT attempt_range CHECK (attempt BETWEEN 0 AND max_attempts),
    CONSTRAINT non_negative_priority CHECK (priority >= 0),
    CONSTRAINT positive_max_attempts CHECK (max_attempts > 0),
    CONSTRAINT queue_length CHECK (char_length(queue) > 0 AND char_length(queue) < 128),
    CONSTRAINT worker_length CHECK (char_length(worker) > 0 AND char_length(worker) < 128)
);
CREATE INDEX oban_jobs_state_queue_priority_scheduled_at_id_index
    ON {p}.oban_jobs (state, queue, priority, scheduled_at, id);
CREATE INDEX oban_jobs_args_index ON {p}.oban_jobs USING gin (args);
CREATE INDEX oban_jobs_meta_index ON {p}.oban_jobs USING gin (meta);
CREATE INDEX oban_jobs_state_cancelled_at_index ON {p}.oban_jobs (state, cancelled_at);
CREATE INDEX oban_jobs_state_discarded_at_index ON {p}.oban_jobs (state, discarded_at);
CREATE UNLOGGED TABLE {p}.oban_peers (
    name       text PRIMARY KEY,
    node       text NOT NULL,
    started_at timestamp NOT NULL,
    expires_at timestamp NOT NULL
);
COMMENT ON TABLE {p}.oban_jobs IS {version};
"""


def make_tables(url: str, prefix: str = "public", version: int = 14) -> None:
    """Make Oban's tables as Elixir's migrations do."""
    states = STATES if version >= 14 else OLD_STATES
    p, names = sql.Identifier(prefix), sql.SQL(", ").join(states.split())
    with psycopg.connect(url) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(p))
        connection.execute(sql.SQL("CREATE TYPE {}.oban_job_state AS ENUM ({})").format(p, names))
        connection.execute(sql.SQL(TABLES).format(p=p, version=str(version)))


def insert(
    url: str,
    args: dict[str, Any],
    *,
    worker: str,
    queue: str = "default",
    prefix: str = "public",
    max_attempts: int = 20,
    meta: dict[str, Any] | None = None,
    priority: int | None = None,
    scheduled_at: datetime | None = None,
    tags: Sequence[str] = (),
    compress: bool = False,
) -> int:
    """What ``Oban.Job.new(args, options) |> Oban.insert()`` executes; the job's id.

    Ecto names the fields that have a value, and leaves the others to the table's defaults.

    Args:
        compress: tell of the job as Oban did before 2.21.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        row: dict[str, Any] = {
            "args": Jsonb(args),
            "attempt": 0,
            "errors": _no_errors(connection, prefix),
            "max_attempts": max_attempts,
            "meta": Jsonb(meta or {}),
            "queue": queue,
            "state": "scheduled" if scheduled_at else "available",
            "tags": sorted({tag.strip().lower() for tag in tags}),
            "worker": worker,
        }
        if priority is not None:
            row["priority"] = priority
        if scheduled_at is not None:
            row["scheduled_at"] = scheduled_at
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING {}").format(
            sql.Identifier(prefix, "oban_jobs"),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join([sql.Placeholder()] * len(row)),
            sql.Identifier("id"),
        )
        inserted = connection.execute(statement, list(row.values())).fetchone()
        assert inserted is not None, "the row comes back"
        if row["state"] == "available":
            connection.execute(
                "SELECT pg_notify(%s, payload) FROM json_array_elements_text(%s::json) AS payload",
                (f"{prefix}.oban_insert", json.dumps([_encoded({"queue": queue}, compress)])),
            )
    return inserted[0]


def _no_errors(connection: psycopg.Connection[Any], prefix: str) -> object:
    """An empty list as the column's own type has it: Ecto's driver asks the server for types."""
    found = connection.execute(
        "SELECT atttypid::regtype::text FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attname = 'errors'",
        (f'"{prefix}".oban_jobs',),
    ).fetchone()
    return [] if found == ("jsonb[]",) else Jsonb([])


def _encoded(payload: dict[str, Any], compress: bool) -> str:
    text = json.dumps(payload)
    return base64.b64encode(gzip.compress(text.encode())).decode() if compress else text


# --- examples in the docs

_JOB = re.compile(
    r"^%\{(?P<args>[^{}]*)\}\s*\|>\s*Oban\.Job\.new\((?P<options>[^()]*)\)\s*\|>\s*Oban\.insert!?\(\)$"
)
_PAIR = re.compile(r'(\w+): (?:"([^"]*)"|:(\w+)|(\d+)|\["([^"]*)"\])(?:,\s*|\s*$)')


def jobs_of(source: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The jobs that a piece of Elixir inserts: their args and options.

    Understands as much Elixir as the docs use, a blank line between jobs; nothing else passes.
    """
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for text in re.split(r"\n\s*\n", source.strip()):
        code = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).strip()
        match = _JOB.match(code)
        assert match, f"not understood: {code}"
        found.append((_pairs(match["args"]), _pairs(match["options"])))
    return found


def _pairs(text: str) -> dict[str, Any]:
    text = " ".join(text.split())
    assert _PAIR.sub("", text) == "", f"not understood: {text}"
    pairs: dict[str, Any] = {}
    for name, word, atom, number, tag in _PAIR.findall(text):
        pairs[name] = int(number) if number else [tag] if tag else atom or word
    return pairs
