"""The ledger's tables in a SQLite file: install, upgrade, verify.

Owns when a migration runs; the numbered files are `durably.ledger.schema`'s.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from durably.errors import SchemaError
from durably.ledger import schema
from durably.ledger.sqlite.connection import begin_immediate, translate
from durably.ledger.sqlite.moved import refuse_moved

_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS durably_schema (
    version    INTEGER PRIMARY KEY,
    applied_at TEXT NOT NULL
) STRICT
"""


def upgrade(connection: sqlite3.Connection) -> tuple[int, int]:
    """Bring the tables up to date, in one transaction; several processes may try at once.

    Returns:
        The version found (0: none) and the version now.

    Raises:
        LedgerMoved: its runs were moved to another database.
        SchemaError: a newer version of durably wrote the tables.
        LedgerError: the file cannot be read or written.
    """
    newest = schema.newest_version("sqlite")
    path = _file_of(connection)
    try:
        refuse_moved(connection, path)
        found = schema_version(connection)
        if found < newest:
            begin_immediate(connection)
            try:
                found = schema_version(connection)
                _apply(connection, found, newest)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
    except sqlite3.Error as error:
        raise translate(error, path) from error
    if found > newest:
        raise SchemaError(
            f"{path} was written by a newer durably (schema {found}; this version knows {newest}). "
            "Upgrade durably here before using it."
        )
    return found, newest


def _apply(connection: sqlite3.Connection, found: int, newest: int) -> None:
    if found >= newest:
        return
    connection.execute(_VERSION_TABLE)
    scripts = [s for version, s in schema.migrations("sqlite") if version > found]
    for script in [schema.current_schema("sqlite")] if found == 0 else scripts:
        for statement in split_script(script):
            connection.execute(statement)
    connection.execute("INSERT INTO durably_schema VALUES (?, durably_now())", (newest,))


def split_script(script: str) -> list[str]:
    """The statements of a migration; ``executescript`` would commit half-way.

    Raises:
        ValueError: the last statement has no end; it would be left out without a word.
    """
    statements: list[str] = []
    buffer = ""
    for line in script.splitlines(keepends=True):
        buffer += line
        if sqlite3.complete_statement(buffer):
            statements.append(buffer)
            buffer = ""
    if re.sub(r"--.*", "", buffer).strip():
        raise ValueError(f"A statement does not end with a semicolon: {buffer.strip()}")
    return statements


def schema_version(connection: sqlite3.Connection) -> int:
    """The version of the tables in a file; 0: it has none."""
    known = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'durably_schema'"
    ).fetchone()
    if known is None:
        return 0
    row = connection.execute("SELECT max(version) FROM durably_schema").fetchone()
    return row[0] or 0


def _file_of(connection: sqlite3.Connection) -> Path:
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])
