"""The application's own tables in the ledger's database, and which databases a test is for.

Owns what differs between the two databases for a tool and for whoever looks at what it wrote.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

ON_SQLITE = pytest.mark.parametrize("app_url", ["sqlite"], indirect=True)
"""For tests of what no database has a part in: on the quicker one only."""

ON_POSTGRES = pytest.mark.parametrize("app_url", ["postgres"], indirect=True)
"""For tests of what only PostgreSQL does."""


def sql(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement on a connection of its own, and return its rows."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            return connection.execute(statement).fetchall()
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def empty(url: str) -> None:
    """Leave a PostgreSQL database as it is when durably's tables have just been made."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        tables = connection.execute(
            "SELECT relname, relname ~ '^(durably|oban)_' FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND relname <> 'durably_schema'"
        ).fetchall()
        for name, own in tables:
            do = "DELETE FROM {}" if own else "DROP TABLE {} CASCADE"
            connection.execute(SQL(do).format(Identifier(name)))
