"""What a look at a PostgreSQL ledger finds, without changing it.

Owns the checks of the server and its tables; what is stored in them is read as everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from durably.errors import LedgerError, LedgerMoved
from durably.ledger import schema
from durably.ledger.postgres.connection import connect, translate
from durably.ledger.postgres.incoming import refuse_incomplete
from durably.ledger.postgres.schema import ledger_version
from durably.ledger.postgres.url import PostgresUrl
from durably.records import Finding, FindingStatus

OLDEST_SERVER = 140000
"""PostgreSQL 14: the first with SQL functions whose body is parsed when they are made."""


def examine_server(where: PostgresUrl) -> list[Finding]:
    """Every check of the server; stops at the first that makes the others pointless."""
    try:
        with connect(where) as connection:
            findings = list(_server(connection))
            version = ledger_version(where)
            findings.append(_schema(where, version))
            if version == schema.newest_version("postgres"):
                findings += _incomplete(connection, where)
    except psycopg.Error as error:
        return [Finding("ledger", FindingStatus.PROBLEM, str(translate(error, where.shown)))]
    except LedgerError as error:
        return [Finding("ledger", FindingStatus.PROBLEM, str(error))]
    return findings


def _server(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    version = connection.info.server_version
    name = connection.info.parameter_status("server_version") or str(version)
    if version >= OLDEST_SERVER:
        yield Finding("PostgreSQL", FindingStatus.OK, name)
    else:
        yield Finding("PostgreSQL", FindingStatus.PROBLEM, f"{name} is too old: 14 at least.")
    for setting in ("fsync", "full_page_writes"):
        value = _show(connection, setting)
        if value != "on":
            yield Finding(
                "durability",
                FindingStatus.PROBLEM,
                f"{setting}={value}: a power cut could lose what was committed, or everything",
            )
    value = _show(connection, "synchronous_commit")
    said = f"synchronous_commit={value}" + (", turned on by durably" if value == "off" else "")
    yield Finding("durability", FindingStatus.OK, said)
    most = int(_show(connection, "max_connections"))
    row = connection.execute("SELECT count(*) FROM pg_stat_activity").fetchone()
    used = 0 if row is None else row[0]
    status = FindingStatus.OK if used < 0.9 * most else FindingStatus.WARNING
    yield Finding("connections", status, f"{used} of {most} used")


def _show(connection: psycopg.Connection[Any], setting: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
    assert row is not None, "a setting of every server"
    return row[0]


def _incomplete(connection: psycopg.Connection[Any], where: PostgresUrl) -> Iterator[Finding]:
    try:
        refuse_incomplete(connection, where)
    except LedgerMoved as error:
        yield Finding("transfer", FindingStatus.PROBLEM, str(error))


def _schema(where: PostgresUrl, version: int) -> Finding:
    newest = schema.newest_version("postgres")
    if version == newest:
        return Finding("ledger", FindingStatus.OK, f"{where.shown}, schema {version}")
    if version == 0:
        text = f"there is no ledger at {where.shown}; `durably migrate` creates it."
    elif version < newest:
        text = f"{where.shown} has schema {version}, this version {newest}; run `durably migrate`."
    else:
        text = f"{where.shown} has schema {version}, this version knows {newest}: upgrade durably."
    return Finding("ledger", FindingStatus.PROBLEM, text)
