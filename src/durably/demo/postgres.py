"""The demo's place on a PostgreSQL server: a schema of its own, made and dropped by demos only.

Owns that nothing else in the user's database is touched; what lies in it is the shop's and the
ledger's.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from durably.demo.site import data_text
from durably.errors import ConfigError
from durably.ledger.postgres.connection import connect, translate
from durably.ledger.postgres.url import PostgresUrl

SCHEMA = "durably_demo"
"""Where demos work whose URL names no schema."""

MARK = "Made by `durably demo`. The next one drops it."
"""The comment on a schema that a demo may drop."""

TO_POSTGRES = (
    (r"\) STRICT;", ");"),
    (r"\bid +INTEGER PRIMARY KEY", "id INTEGER PRIMARY KEY GENERATED ALWAYS AS IDENTITY"),
    (r"date\('now'\)", "CAST(CURRENT_DATE AS TEXT)"),
    (r"date\('now', '-(\d+) days'\)", r"CAST(CURRENT_DATE - \1 AS TEXT)"),
    (r"datetime\('now'\)", "CURRENT_TIMESTAMP"),
)
"""What shop.sql, which is written for SQLite, says otherwise there."""


_TRY_LOCK = "pg_try_advisory_lock(hashtextextended(%s, 0))"


class PostgresSchema:
    """A schema of a database of the user's (see `durably.demo.database.Database`)."""

    name = "PostgreSQL"
    failures: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, url: str) -> None:
        self.url = _with_schema(url)
        self._where = PostgresUrl.parse(self.url)
        self.schema = self._where.schema
        self.shown = self._where.shown
        self.remains = f"schema {self.schema} (DROP SCHEMA {self.schema} CASCADE removes it)"

    @contextmanager
    def held(self) -> Generator[None]:
        try:
            with connect(self._where) as connection:
                # For as long as the connection lasts: two demos would drop each other's tables.
                if not _ask(connection, _TRY_LOCK, f"durably demo {self.schema}"):
                    raise ConfigError(
                        f"Another demo is at work in {self.shown}: wait until it has ended."
                    )
                with connection.transaction():
                    self._make(connection)
                yield
        except psycopg.Error as error:
            raise translate(error, self.shown) from error

    def remove(self) -> None:
        try:
            with connect(self._where) as connection:
                self._drop(connection)
        except psycopg.Error as error:
            raise translate(error, self.shown) from error

    def _make(self, connection: psycopg.Connection[Any]) -> None:
        self._drop(connection)
        exists = _ask(connection, "to_regnamespace(%s) IS NOT NULL", f'"{self.schema}"')
        if not exists:
            name = sql.Identifier(self.schema)
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
            connection.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, MARK))
        elif _ask(
            connection,
            "EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(%s))",
            f'"{self.schema}"',
        ):
            raise ConfigError(
                f"Schema {self.schema!r} in {self.shown} is not empty, and no demo made it: name "
                "one that does not exist, with ?schema=NAME."
            )

    def _drop(self, connection: psycopg.Connection[Any]) -> None:
        """Drop the schema if a demo has made it."""
        found = _ask(
            connection, "obj_description(to_regnamespace(%s), 'pg_namespace')", f'"{self.schema}"'
        )
        if found == MARK:
            name = sql.Identifier(self.schema)
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(name))

    def make_shop(self) -> None:
        text = data_text("shop.sql")
        for pattern, replacement in TO_POSTGRES:
            text = re.sub(pattern, replacement, text)
        with connect(self._where) as connection, connection.transaction():
            self._enter(connection)
            connection.execute(text.encode())

    def read(self, statement: str, *values: object) -> list[dict[str, Any]]:
        with connect(self._where) as connection, connection.transaction():
            self._enter(connection)
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_written(statement), values).fetchall()

    def write(self, connection: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
        self._enter(connection)
        cursor = connection.execute(_written(statement), values)
        return cursor.fetchall() if cursor.description else []

    def _enter(self, connection: psycopg.Connection[Any]) -> None:
        """Let the open transaction find the shop's tables by their plain names."""
        name = sql.Identifier(self.schema)
        connection.execute(sql.SQL("SET LOCAL search_path = {}").format(name))


def _written(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()


def _ask(connection: psycopg.Connection[Any], expression: str, value: str) -> Any:
    row = connection.execute(f"SELECT {expression}".encode(), (value,)).fetchone()
    assert row is not None, "SELECT without FROM has one row"
    return row[0]


def _with_schema(url: str) -> str:
    query = url.partition("?")[2]
    if "schema" in dict(parse_qsl(query, keep_blank_values=True)):
        return url
    return f"{url}{'&' if query else '?'}{urlencode({'schema': SCHEMA})}"
