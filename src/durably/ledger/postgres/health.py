"""What a look at a PostgreSQL ledger finds, without changing it.

Owns the checks of the server and its tables; what is stored in them is read as everywhere else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from durably.errors import LedgerError, LedgerMoved, SchemaError
from durably.ledger import schema
from durably.ledger.postgres.connection import connect, translate
from durably.ledger.postgres.incoming import refuse_incomplete
from durably.ledger.postgres.oban_tables import missing_parts
from durably.ledger.postgres.schema import ledger_version, refuse_unfit_server
from durably.ledger.postgres.url import PostgresUrl
from durably.records import Finding, FindingStatus

NOTICE_SECONDS = 3.0
"""How long a notice may take to arrive before it counts as lost."""

_RIGHTS = """
SELECT relname, privilege FROM pg_class
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) privilege
WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p')
  AND (relname LIKE 'durably\\_%%' OR relname LIKE 'oban\\_%%')
  AND (privilege = 'SELECT' OR relname NOT IN ('durably_schema', 'durably_transfer'))
  AND NOT has_table_privilege(oid, privilege)
UNION ALL
SELECT relname, 'USAGE' FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid
WHERE relnamespace = to_regnamespace(%s) AND relname LIKE 'oban\\_jobs\\_%%'
  AND NOT has_sequence_privilege(seqrelid, 'USAGE')
ORDER BY 1, 2 LIMIT 1
"""


def examine_server(where: PostgresUrl) -> list[Finding]:
    """Every check of the server; stops at the first that makes the others pointless."""
    findings: list[Finding] = []
    try:
        with connect(where) as connection:
            findings += _server(connection, where)
            findings.append(_notices(connection, where))
            findings += _tables(connection, where)
    except psycopg.Error as error:
        findings.append(_problem("ledger", str(translate(error, where.shown))))
    except LedgerError as error:
        findings.append(_problem("ledger", str(error)))
    return findings


# --- the server


def _server(connection: psycopg.Connection[Any], where: PostgresUrl) -> Iterator[Finding]:
    try:
        refuse_unfit_server(connection, where)
    except SchemaError as error:
        yield _problem("PostgreSQL", str(error))
    else:
        version = connection.info.parameter_status("server_version")
        yield _ok("PostgreSQL", version or str(connection.info.server_version))
    yield from _durability(connection)
    yield _connections(connection)


def _durability(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    for setting in ("fsync", "full_page_writes"):
        if (value := _show(connection, setting)) != "on":
            cost = "a power cut could lose what was committed, or everything"
            yield _problem("durability", f"{setting}={value}: {cost}")
    value = _show(connection, "synchronous_commit")
    text = f"synchronous_commit={value}" + (", turned on by durably" if value == "off" else "")
    yield _ok("durability", text)


def _connections(connection: psycopg.Connection[Any]) -> Finding:
    reserved = int(_show(connection, "superuser_reserved_connections"))
    most = int(_show(connection, "max_connections")) - reserved
    used = _one(
        connection, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    text = f"{used} of {most} used"
    if used < 0.8 * most:
        return _ok("connections", text)
    return Finding("connections", FindingStatus.WARNING, f"{text}: who comes next may find none")


def _notices(connection: psycopg.Connection[Any], where: PostgresUrl) -> Finding:
    """Whether notices arrive: behind a pooler in transaction mode they do not."""
    # A pooler tells its clients about processes of its own.
    behind = _one(connection, "SELECT pg_backend_pid()") != connection.info.backend_pid
    pooler = ", through a pooler" if behind else ""
    if not where.notify:
        return _ok("notices", f"off{pooler}; processes look for news every half second")
    channel = f"durably.doctor.{secrets.token_hex(8)}"
    with connect(where) as listening:
        listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        began = time.monotonic()
        connection.execute("SELECT pg_notify(%s, '')", (channel,))
        heard = any(listening.notifies(timeout=NOTICE_SECONDS, stop_after=1))
        took = time.monotonic() - began
    if heard:
        return _ok("notices", f"arrive{pooler}, in {1000 * took:.0f} ms")
    return Finding(
        "notices",
        FindingStatus.WARNING,
        f"don't arrive{pooler}, as behind one in transaction mode: say ?notify=off&prepare=off in "
        "the URL, or connect to the server itself",
    )


# --- the tables


def _tables(connection: psycopg.Connection[Any], where: PostgresUrl) -> Iterator[Finding]:
    version = ledger_version(where)
    yield _schema(where, version)
    if version != schema.newest_version("postgres"):
        return
    yield _oban(connection, where)
    yield from _rights(connection, where)
    try:
        refuse_incomplete(connection, where)
    except LedgerMoved as error:
        yield _problem("transfer", str(error))


def _schema(where: PostgresUrl, version: int) -> Finding:
    newest = schema.newest_version("postgres")
    if version == newest:
        return _ok("ledger", f"{where.shown}, schema {version}")
    if version == 0:
        text = f"there is no ledger at {where.shown}; `durably migrate` creates it."
    elif version < newest:
        text = f"{where.shown} has schema {version}, this version {newest}; run `durably migrate`."
    else:
        text = f"{where.shown} has schema {version}, this version knows {newest}: upgrade durably."
    return _problem("ledger", text)


def _oban(connection: psycopg.Connection[Any], where: PostgresUrl) -> Finding:
    missing = missing_parts(connection, where)
    if not missing:
        return _ok("Oban", f"its tables are in schema {where.schema}")
    return _problem("Oban", f"{', '.join(missing)} missing; run `durably migrate`.")


def _rights(connection: psycopg.Connection[Any], where: PostgresUrl) -> Iterator[Finding]:
    row = connection.execute(_RIGHTS, (where.schema, where.schema)).fetchone()
    if row is not None:
        user = connection.info.user
        text = f"{user} may not {row[1]} on {row[0]}: see Roles in the page on PostgreSQL"
        yield _problem("rights", text)


def _show(connection: psycopg.Connection[Any], setting: str) -> str:
    return _one(connection, "SELECT current_setting(%s)", setting)


def _one(connection: psycopg.Connection[Any], query: Any, *parameters: object) -> Any:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None, "asked for one row"
    return row[0]


def _ok(subject: str, text: str) -> Finding:
    return Finding(subject, FindingStatus.OK, text)


def _problem(subject: str, text: str) -> Finding:
    return Finding(subject, FindingStatus.PROBLEM, text)
