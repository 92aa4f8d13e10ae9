"""The ledger's tables and Oban's in PostgreSQL: install, upgrade, verify, print.

Owns when a migration runs; the numbered files are `durably.ledger.schema`'s, Oban's are Oban's.
"""

from __future__ import annotations

from typing import Any, LiteralString, cast

import psycopg
from oban.schema import install_sql
from psycopg import sql

from durably.errors import SchemaError
from durably.ledger import schema
from durably.ledger.postgres.connection import connect, translate
from durably.ledger.postgres.incoming import refuse_incomplete
from durably.ledger.postgres.url import DEFAULT_SCHEMA, PostgresUrl

_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS durably_schema (
    version    integer PRIMARY KEY,
    ledger_id  uuid NOT NULL,
    applied_at timestamptz NOT NULL
);
"""


def migration_sql(where: PostgresUrl, found: int) -> str:
    """The statements that bring tables of version ``found`` (0: none) up to date, as one script.

    It is one transaction, needs nothing of psql, and names its schema itself.
    """
    newest = schema.newest_version("postgres")
    script = ["BEGIN;"]
    if where.schema != DEFAULT_SCHEMA:
        script.append(f'CREATE SCHEMA IF NOT EXISTS "{where.schema}";')
    script.append(f'SET LOCAL search_path = "{where.schema}";')
    script.append(f"-- Oban's own tables.\n{install_sql(where.schema).strip()}")
    if found < newest:
        script.append(_VERSION_TABLE.strip())
        if found == 0:
            script.append(schema.current_schema("postgres").strip())
        else:
            script += [s.strip() for v, s in schema.migrations("postgres") if v > found]
        script.append(
            "INSERT INTO durably_schema (version, ledger_id, applied_at)\n"
            f"SELECT {newest}, COALESCE((SELECT ledger_id FROM durably_schema LIMIT 1), "
            "gen_random_uuid()), now();"
        )
    script.append("COMMIT;")
    return "\n\n".join(script) + "\n"


def upgrade(where: PostgresUrl) -> tuple[int, int]:
    """Bring the tables up to date, in one transaction; several processes may try at once.

    Returns:
        The version found (0: none) and the version now.

    Raises:
        SchemaError: a newer version of durably wrote the tables.
        LedgerError: the server cannot be reached, or the user may not create tables.
    """
    newest = schema.newest_version("postgres")
    with connect(where) as connection:
        try:
            # For the session, not the transaction: the script has a transaction of its own.
            connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (_lock(where),))
            found = _version(connection, where)
            if found > newest:
                raise _newer(where, found, newest)
            connection.execute(cast(LiteralString, migration_sql(where, found)))
        except psycopg.Error as error:
            raise translate(error, where.shown) from error
    return found, newest


def verify(where: PostgresUrl) -> tuple[int, str]:
    """The version of the tables and the ledger's identity.

    Raises:
        SchemaError: the tables are missing, older or newer than this version of durably.
        LedgerMoved: another ledger is being moved here, and is not complete.
        LedgerUnavailable: the server cannot be reached.
    """
    newest = schema.newest_version("postgres")
    with connect(where) as connection:
        try:
            found = _version(connection, where)
            if found == 0:
                raise SchemaError(
                    f"There is no ledger at {where.shown}: check the URL, or create it with "
                    "`durably migrate`."
                )
            if found < newest:
                raise SchemaError(
                    f"{where.shown} has schema {found}, this version of durably needs {newest}: "
                    "run `durably migrate`."
                )
            if found > newest:
                raise _newer(where, found, newest)
            refuse_incomplete(connection, where)
            row = connection.execute(
                sql.SQL("SELECT CAST(ledger_id AS TEXT) FROM {} LIMIT 1").format(_table(where))
            ).fetchone()
        except psycopg.Error as error:
            raise translate(error, where.shown) from error
    assert row is not None, "a version was found, in a row"
    return found, row[0]


def ledger_version(where: PostgresUrl) -> int:
    """The version of the tables; 0: there are none.

    Raises:
        LedgerUnavailable: the server cannot be reached.
    """
    with connect(where) as connection:
        try:
            return _version(connection, where)
        except psycopg.Error as error:
            raise translate(error, where.shown) from error


def _version(connection: psycopg.Connection[Any], where: PostgresUrl) -> int:
    row = connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL", (f'"{where.schema}".durably_schema',)
    ).fetchone()
    if row is None or not row[0]:
        return 0
    row = connection.execute(
        sql.SQL("SELECT COALESCE(max(version), 0) FROM {}").format(_table(where))
    ).fetchone()
    return 0 if row is None else row[0]


def _table(where: PostgresUrl) -> sql.Identifier:
    return sql.Identifier(where.schema, "durably_schema")


def _lock(where: PostgresUrl) -> str:
    return f"durably migrate {where.schema}"


def _newer(where: PostgresUrl, found: int, newest: int) -> SchemaError:
    return SchemaError(
        f"{where.shown} was written by a newer durably (schema {found}; this version knows "
        f"{newest}). Upgrade durably here before using it."
    )
