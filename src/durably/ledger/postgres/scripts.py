"""The statements that a migration consists of, as a script that any client of PostgreSQL runs.

Owns how it is put together; the numbered files are `durably.ledger.schema`'s, Oban's are Oban's.
"""

from __future__ import annotations

from durably.ledger import schema
from durably.ledger.postgres.oban_tables import install_statements
from durably.ledger.postgres.url import PostgresUrl

_BEGIN = """\
-- Brings the ledger in {shown}
-- from schema {found} to {newest}, in one transaction.
BEGIN;

DO $$ BEGIN
    -- Several may try at once.
    PERFORM pg_advisory_xact_lock(hashtextextended('{lock}', 0));
{check}
END $$;"""

_CHECK_NONE = """\
    IF to_regclass('{table}') IS NOT NULL THEN
        RAISE EXCEPTION 'There is a ledger already: print this script again.';
    END IF;"""

_CHECK_VERSION = """\
    IF (SELECT max(version) FROM {table}) <> {found} THEN
        RAISE EXCEPTION 'This is not schema {found} of the ledger: print this script again.';
    END IF;"""

_MAKE_SCHEMA = """\
DO $$ BEGIN
    -- Not IF NOT EXISTS, which asks for the right to make schemas even if there is one.
    IF to_regnamespace('"{schema}"') IS NULL THEN
        CREATE SCHEMA "{schema}";
    END IF;
END $$;"""

_VERSION_TABLE = """\
CREATE TABLE IF NOT EXISTS durably_schema (
    version    integer PRIMARY KEY,
    ledger_id  uuid NOT NULL,
    applied_at timestamptz NOT NULL
);"""

_VERSION = """\
INSERT INTO durably_schema (version, ledger_id, applied_at)
SELECT {newest}, COALESCE((SELECT ledger_id FROM durably_schema LIMIT 1), gen_random_uuid()),
       now();"""


def migration_statements(where: PostgresUrl, found: int, *, oban: bool) -> str:
    """What brings tables of version ``found`` (0: none) up to date, without a transaction.

    Args:
        oban: whether Oban's tables are made, or completed, as well.
    """
    newest = schema.newest_version("postgres")
    parts = [
        _MAKE_SCHEMA.format(schema=where.schema),
        f'SET LOCAL search_path = "{where.schema}";',
    ]
    if oban:
        parts.append(f"-- Oban's own tables.\n{install_statements(where)}")
    if found == 0:
        parts += [_VERSION_TABLE, schema.current_schema("postgres").strip()]
    else:
        parts += [text.strip() for v, text in schema.migrations("postgres") if v > found]
    if found < newest:
        parts.append(_VERSION.format(newest=newest))
    return "\n\n".join(parts)


def migration_script(where: PostgresUrl, found: int, *, oban: bool) -> str:
    """The same as one transaction, which changes nothing where it does not fit.

    It needs nothing of psql, and names its schema itself.
    """
    check = _CHECK_VERSION if found else _CHECK_NONE
    table = where.qualified("durably_schema")
    begin = _BEGIN.format(
        shown=where.shown,
        found=found,
        newest=schema.newest_version("postgres"),
        lock=lock_name(where),
        check=check.format(table=table, found=found),
    )
    return "\n\n".join([begin, migration_statements(where, found, oban=oban), "COMMIT;"]) + "\n"


def lock_name(where: PostgresUrl) -> str:
    """What everybody locks who migrates this schema."""
    return f"durably migrate {where.schema}"
