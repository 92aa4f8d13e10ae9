"""What a look at a SQLite ledger's file finds, without changing it.

Owns the checks of the file; what is stored in it is read as everywhere else.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from durably.errors import LedgerError
from durably.ledger.schema import newest_version
from durably.ledger.sqlite.connection import apply_pragmas, translate
from durably.ledger.sqlite.moved import find_mark
from durably.ledger.sqlite.schema import schema_version
from durably.records import Finding, FindingStatus

LOW_BYTES = 1_000_000_000
"""Free disk below which somebody should know."""

OUT_BYTES = 100_000_000
"""Free disk below which writes are about to fail."""


def ledger_version(path: Path) -> int:
    """The version of the ledger in a file; 0 where there is no file, or no ledger in it.

    Raises:
        LedgerError: the file cannot be read, or is not a database.
    """
    if not path.exists():
        return 0
    try:
        with closing(_open(path)) as connection:
            return schema_version(connection)
    except sqlite3.Error as error:
        raise translate(error, path) from error


def examine_file(path: Path) -> list[Finding]:
    """Every check of the file; stops at the first that makes the others pointless."""
    findings = [Finding("SQLite", FindingStatus.OK, sqlite3.sqlite_version)]
    try:
        version = ledger_version(path)
        findings.append(_schema(path, version))
        if version == newest_version("sqlite"):
            with closing(_open(path)) as connection:
                findings += [*_moved(path, connection), *_contents(connection)]
    except sqlite3.Error as error:
        findings.append(Finding("ledger", FindingStatus.PROBLEM, str(translate(error, path))))
    except LedgerError as error:
        findings.append(Finding("ledger", FindingStatus.PROBLEM, str(error)))
    findings.append(_disk(path))
    return findings


def _open(path: Path) -> sqlite3.Connection:
    # mode=rw: a file that is not there is not made.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)


def _schema(path: Path, version: int) -> Finding:
    newest = newest_version("sqlite")
    if version == newest:
        return Finding("ledger", FindingStatus.OK, f"{path}, schema {version}")
    if version == 0:
        text = f"there is no ledger at {path}; `durably migrate` creates it."
    elif version < newest:
        text = f"{path} has schema {version}, this version {newest}; run `durably migrate`."
    else:
        text = f"{path} has schema {version}, this version knows {newest}: upgrade durably here."
    return Finding("ledger", FindingStatus.PROBLEM, text)


def _moved(path: Path, connection: sqlite3.Connection) -> Iterator[Finding]:
    mark = find_mark(connection)
    if mark is not None:
        yield Finding("moved", FindingStatus.PROBLEM, mark.sentence(path))


def _contents(connection: sqlite3.Connection) -> Iterator[Finding]:
    errors = [row[0] for row in connection.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
    if errors:
        yield Finding("integrity", FindingStatus.PROBLEM, f"damaged: {'; '.join(errors)}")
    else:
        yield Finding("integrity", FindingStatus.OK, "quick_check found nothing wrong")
    apply_pragmas(connection)
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    sound = mode == "wal" and synchronous >= 2
    yield Finding(
        "durability",
        FindingStatus.OK if sound else FindingStatus.PROBLEM,
        f"journal_mode={mode}, synchronous={'FULL' if synchronous >= 2 else synchronous}"
        + ("" if sound else ": a power cut could lose what was committed"),
    )


def _disk(path: Path) -> Finding:
    folder = path.absolute().parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("disk", FindingStatus.PROBLEM, f"{folder}: {error.strerror}")
    status = FindingStatus.OK if free >= LOW_BYTES else FindingStatus.WARNING
    if free < OUT_BYTES:
        status = FindingStatus.PROBLEM
    return Finding("disk", status, f"{free / 1e9:.1f} GB free in {folder}")
