"""Ledgers for the runs of a crash test on PostgreSQL: schemas of their own, dropped after each run.

Owns making and dropping them; nothing else in the user's database is touched.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import psycopg
from psycopg import sql

from durably.crashtest.grounds import Setup, make_ledger
from durably.errors import ConfigError
from durably.ledger.postgres.connection import connect, translate
from durably.ledger.postgres.url import DEFAULT_SCHEMA, PostgresUrl


class PostgresGrounds:
    """A schema for each run.

    Args:
        url: the database; names no schema.
        nonce: a part of the schemas' names that no other crash test has.

    Raises:
        ConfigError: the URL names a schema.
    """

    dialect = "postgres"

    def __init__(self, url: str, nonce: str, setup: Setup | None) -> None:
        if PostgresUrl.parse(url).schema != DEFAULT_SCHEMA:
            raise ConfigError(
                "--database names a schema: leave it out, each run has one of its own there."
            )
        self._url = url
        self._nonce = nonce
        self._setup = setup

    @contextmanager
    def ledger(self, folder: Path, number: int) -> Generator[str]:
        schema = f"durably_crashtest_{self._nonce}_{number}"
        mark = "&" if "?" in self._url else "?"
        url = f"{self._url}{mark}{urlencode({'schema': schema, 'pool_size': 2})}"
        try:
            make_ledger(url, self._setup)
            yield url
        finally:
            _drop(PostgresUrl.parse(url), schema)


def _drop(where: PostgresUrl, schema: str) -> None:
    statement = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
    try:
        with connect(where) as connection:
            connection.execute(statement)
            connection.commit()
    except psycopg.Error as error:
        raise translate(error, where.shown) from error
