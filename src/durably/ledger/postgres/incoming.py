"""The mark of a ledger that another one is being moved into: obeyed until that is complete.

Owns what everybody else is told meanwhile; moving is `durably.ledger.transfer`'s.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from durably.errors import LedgerMoved
from durably.ledger.postgres.url import PostgresUrl

GUARDED = (
    *("runs", "inputs", "messages", "effects", "decisions", "signals", "notices"),
    *("attempts", "events", "queues", "budgets", "actions", "workers"),
)

_TRIGGER = sql.Identifier("incoming")


def refuse_incomplete(connection: psycopg.Connection[Any], where: PostgresUrl) -> None:
    """Refuse to work on a part of what is to come.

    Raises:
        LedgerMoved: a ledger is being moved here.
    """
    row = connection.execute(
        sql.SQL("SELECT source, began_at FROM {} WHERE finished_at IS NULL").format(
            sql.Identifier(where.schema, "durably_transfer")
        )
    ).fetchone()
    if row is not None:
        raise LedgerMoved(sentence(where, row[0], row[1]))


def sentence(where: PostgresUrl, source: str, began_at: datetime) -> str:
    """What somebody who opens the ledger, or writes to it, is told."""
    return (
        f"{where.shown} is not complete: {source} is being moved here, since "
        f"{began_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC; run that `durably transfer` again to "
        "finish it, or with --undo to take it back."
    )


def guard(cursor: psycopg.Cursor[Any], where: PostgresUrl, transfer_id: str, order: str) -> None:
    """Let nobody but the transfer write to the ledger's tables.

    Triggers, because a process that has the ledger open does not look at the mark again. They are
    made only now: in a ledger in use they would cost something at every write.
    """
    for table in GUARDED:
        # A worker that leaves may say so.
        verbs = "INSERT OR UPDATE" if table == "workers" else "INSERT OR UPDATE OR DELETE"
        cursor.execute(
            sql.SQL(
                "CREATE TRIGGER {} BEFORE {} ON {} FOR EACH STATEMENT EXECUTE FUNCTION {}({}, {})"
            ).format(
                _TRIGGER,
                sql.SQL(verbs),
                sql.Identifier(where.schema, f"durably_{table}"),
                sql.Identifier(where.schema, "durably_refuse_others"),
                sql.Literal(transfer_id),
                sql.Literal(order),
            )
        )


def unguard(cursor: psycopg.Cursor[Any], where: PostgresUrl) -> None:
    """Let everybody write again."""
    for table in GUARDED:
        cursor.execute(
            sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(
                _TRIGGER, sql.Identifier(where.schema, f"durably_{table}")
            )
        )
