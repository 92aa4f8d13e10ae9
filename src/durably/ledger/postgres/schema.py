"""The ledger's tables and Oban's in PostgreSQL: install, upgrade, verify.

Owns when a migration runs; what it consists of is `durably.ledger.postgres.scripts`'s.
"""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple, cast

import psycopg
from psycopg import sql

from durably.errors import ConfigError, SchemaError
from durably.ledger import schema
from durably.ledger.postgres.connection import connect, translate
from durably.ledger.postgres.incoming import refuse_incomplete
from durably.ledger.postgres.oban_tables import missing_parts, refuse_too_old
from durably.ledger.postgres.scripts import lock_name, migration_script, migration_statements
from durably.ledger.postgres.url import PostgresUrl

OLDEST_SERVER = 140000
"""PostgreSQL 14: the first with SQL functions whose body is parsed when they are made."""


class Upgraded(NamedTuple):
    """What an upgrade did.

    Attributes:
        found: the version of the ledger's tables as they were; 0: there were none.
        now: their version now.
        oban: what became of Oban's tables: ``created``, ``completed`` or ``unchanged``.
    """

    found: int
    now: int
    oban: str


def upgrade(where: PostgresUrl) -> Upgraded:
    """Bring the tables up to date, in one transaction; several processes may try at once.

    Raises:
        SchemaError: a newer version of durably wrote the tables, or the server will not do.
        LedgerError: the server cannot be reached, or the user may not create tables.
    """
    with connect(where) as connection:
        try:
            with connection.transaction():
                lock = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
                connection.execute(lock, (lock_name(where),))
                return _upgrade(connection, where)
        except psycopg.Error as error:
            raise translate(error, where.shown) from error


def drop(where: PostgresUrl) -> None:
    """Delete the schema with all that is in it; for tests, which have one of their own.

    Raises:
        LedgerError: the server cannot be reached, or the user may not.
    """
    with connect(where) as connection:
        try:
            statement = sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE")
            connection.execute(statement.format(sql.Identifier(where.schema)))
        except psycopg.Error as error:
            raise translate(error, where.shown) from error


def _upgrade(connection: psycopg.Connection[Any], where: PostgresUrl) -> Upgraded:
    newest = schema.newest_version("postgres")
    found, missing = _needed(connection, where)
    if found < newest or missing:
        text = migration_statements(where, found, oban=bool(missing))
        connection.execute(cast(LiteralString, text))
    return Upgraded(found, newest, _what_became_of(missing))


def _what_became_of(missing: list[str]) -> str:
    if not missing:
        return "unchanged"
    return "created" if "oban_jobs" in missing else "completed"


def needed_script(where: PostgresUrl, found: int | None = None) -> str:
    """What `upgrade` would do, as a script for somebody who may, or wants to read it first.

    Args:
        found: the version of the tables as they are; 0: there are none. None to look.

    Raises:
        ConfigError: there is no such version.
        SchemaError, LedgerError: as `upgrade`.
    """
    newest = schema.newest_version("postgres")
    if found is not None:
        if not 0 <= found <= newest:
            raise ConfigError(f"There is no schema {found}: from 0 (no tables yet) to {newest}.")
        missing = found < newest
    else:
        with connect(where) as connection:
            try:
                found, parts = _needed(connection, where)
            except psycopg.Error as error:
                raise translate(error, where.shown) from error
        missing = bool(parts)
    if found == newest and not missing:
        return f"-- {where.shown}: schema {newest}, nothing to do.\n"
    return migration_script(where, found, oban=missing)


def _needed(connection: psycopg.Connection[Any], where: PostgresUrl) -> tuple[int, list[str]]:
    """The version that is there, and what is missing of Oban's tables."""
    refuse_unfit_server(connection, where)
    newest = schema.newest_version("postgres")
    found = _version(connection, where)
    if found > newest:
        raise _newer(where, found, newest)
    refuse_too_old(connection, where)
    return found, missing_parts(connection, where)


def refuse_unfit_server(connection: psycopg.Connection[Any], where: PostgresUrl) -> None:
    """Refuse a server that is too old, or whose encoding cannot hold every text.

    Raises:
        SchemaError: it will not do.
    """
    if connection.info.server_version < OLDEST_SERVER:
        name = connection.info.parameter_status("server_version")
        raise SchemaError(f"{where.shown} is PostgreSQL {name}: durably needs 14 or newer.")
    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        raise SchemaError(
            f"{where.shown} is encoded as {encoding}, which cannot hold what prompts may: make a "
            "database with ENCODING 'UTF8'."
        )


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
        "SELECT to_regclass(%s) IS NOT NULL", (where.qualified("durably_schema"),)
    ).fetchone()
    if row is None or not row[0]:
        return 0
    row = connection.execute(
        sql.SQL("SELECT COALESCE(max(version), 0) FROM {}").format(_table(where))
    ).fetchone()
    return 0 if row is None else row[0]


def _table(where: PostgresUrl) -> sql.Identifier:
    return sql.Identifier(where.schema, "durably_schema")


def _newer(where: PostgresUrl, found: int, newest: int) -> SchemaError:
    return SchemaError(
        f"{where.shown} was written by a newer durably (schema {found}; this version knows "
        f"{newest}). Upgrade durably here before using it."
    )
