"""Oban's tables beside the ledger's: what is missing of them, and the statements that make them.

Owns which of Oban's schemas will do; the statements are Oban's own.
"""

from __future__ import annotations

from typing import Any

import psycopg
from oban.schema import install_sql

from durably.errors import SchemaError
from durably.ledger.postgres.url import PostgresUrl

TABLES = ("oban_jobs", "oban_leaders", "oban_producers")

INDEXES = (
    "oban_jobs_state_queue_priority_scheduled_at_id_index",
    "oban_jobs_staging_index",
    "oban_jobs_completed_at_index",
    "oban_jobs_cancelled_at_index",
    "oban_jobs_discarded_at_index",
)

_FUNCTION = "oban_count_estimate(text, text)"

_COLUMNS = ("args", "attempted_by", "cancelled_at", "discarded_at", "meta", "priority", "tags")
"""Of oban_jobs: those that came with its later versions."""

_SUSPENDED = """
SELECT EXISTS (SELECT FROM pg_enum WHERE enumlabel = 'suspended'
               AND enumtypid = to_regtype(%s))
"""


def install_statements(where: PostgresUrl) -> str:
    """What makes Oban's tables, and what is missing of them where others made them."""
    return install_sql(where.schema).strip()


def missing_parts(connection: psycopg.Connection[Any], where: PostgresUrl) -> list[str]:
    """What Oban would not find; nothing, if its tables are as its own installer makes them."""
    relations = [name for name in (*TABLES, *INDEXES) if not _exists(connection, where, name)]
    function = _one(connection, "SELECT to_regprocedure(%s) IS NULL", where.qualified(_FUNCTION))
    type_name = where.qualified("oban_job_state")
    suspended = _one(connection, _SUSPENDED, type_name)
    return [
        *relations,
        *(["oban_count_estimate"] if function else []),
        *([] if suspended else ["the state suspended"]),
    ]


def refuse_too_old(connection: psycopg.Connection[Any], where: PostgresUrl) -> None:
    """Refuse tables that Oban's installer would not bring up to date.

    Raises:
        SchemaError: Elixir's Oban made them, before its version 12.
    """
    if not _exists(connection, where, "oban_jobs"):
        return
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND NOT attisdropped",
        (where.qualified("oban_jobs"),),
    ).fetchall()
    lacking = sorted(set(_COLUMNS) - {name for (name,) in found})
    narrow = _one(
        connection,
        "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(%s) "
        "AND conname = 'priority_range')",
        where.qualified("oban_jobs"),
    )
    if lacking or narrow:
        what = f"has no column {lacking[0]}" if lacking else "takes no priority above 3"
        raise SchemaError(
            f"{where.shown}: the oban_jobs that is there {what}; bring Oban's tables to its "
            "version 12 with its own migrations first, then run `durably migrate` again."
        )


def _exists(connection: psycopg.Connection[Any], where: PostgresUrl, name: str) -> bool:
    return _one(connection, "SELECT to_regclass(%s) IS NOT NULL", where.qualified(name))


def _one(connection: psycopg.Connection[Any], query: Any, parameter: str) -> bool:
    row = connection.execute(query, (parameter,)).fetchone()
    return row is not None and bool(row[0])
